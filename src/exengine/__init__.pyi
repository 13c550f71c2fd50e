# What type checkers see of the lazy facade.
from exengine import errors as errors
from exengine.kernel.acquisition import Acquisition as Acquisition
from exengine.kernel.acquisition import acquire as acquire
from exengine.kernel.data_coords import DataCoordinates as DataCoordinates
from exengine.kernel.data_coords import DataCoordinatesIterator as DataCoordinatesIterator
from exengine.kernel.data_handler import DataHandler as DataHandler
from exengine.kernel.data_storage_base import DatasetStatus as DatasetStatus
from exengine.kernel.data_storage_base import DataStorage as DataStorage
from exengine.kernel.data_storage_base import StorageCapabilities as StorageCapabilities
from exengine.kernel.errors import ExEngineError as ExEngineError
from exengine.kernel.frame_source_base import FrameSource as FrameSource
from exengine.kernel.frame_source_base import SourcePlan as SourcePlan
from exengine.kernel.hookspecs import hookimpl as hookimpl
from exengine.kernel.indexed_storage import DatasetReader as DatasetReader
from exengine.kernel.indexed_storage import IndexedStorage as IndexedStorage
from exengine.kernel.ledger import Ledger as Ledger
from exengine.kernel.listing import backends as backends
from exengine.kernel.listing import sources as sources
from exengine.kernel.managed_storage import ManagedStorage as ManagedStorage
from exengine.kernel.recovery import recover as recover
from exengine.kernel.recovery_base import RecoverReport as RecoverReport
from exengine.kernel.storage_factory import open_dataset as open_dataset
from exengine.kernel.storage_factory import open_storage as open_storage
from exengine.kernel.verification import LostFrame as LostFrame
from exengine.kernel.verification import VerifyReport as VerifyReport
from exengine.kernel.verification import verify as verify

__version__: str
