# What type checkers see of the lazy facade.
from exengine import errors as errors
from exengine.acquisition.recorder import Recorder as Recorder
from exengine.acquisition.run import Acquisition as Acquisition
from exengine.acquisition.run import acquire as acquire
from exengine.datasets.conversion.convert import ConvertReport as ConvertReport
from exengine.datasets.conversion.convert import convert as convert
from exengine.datasets.creation import open_storage as open_storage
from exengine.datasets.opening import open_dataset as open_dataset
from exengine.datasets.recovery import recover as recover
from exengine.datasets.recovery_base import RecoverReport as RecoverReport
from exengine.datasets.verification import LostFrame as LostFrame
from exengine.datasets.verification import VerifyReport as VerifyReport
from exengine.datasets.verification import verify as verify
from exengine.kernel.capabilities import StorageCapabilities as StorageCapabilities
from exengine.kernel.data_coords import DataCoordinates as DataCoordinates
from exengine.kernel.data_coords import DataCoordinatesIterator as DataCoordinatesIterator
from exengine.kernel.data_handler import DataHandler as DataHandler
from exengine.kernel.data_storage_base import DatasetStatus as DatasetStatus
from exengine.kernel.data_storage_base import DataStorage as DataStorage
from exengine.kernel.errors import ExEngineError as ExEngineError
from exengine.kernel.frame_source_base import FrameSource as FrameSource
from exengine.kernel.frames.ledger import Ledger as Ledger
from exengine.kernel.registry.hookspecs import hookimpl as hookimpl
from exengine.kernel.registry.plugins import backends as backends
from exengine.kernel.registry.plugins import sources as sources
from exengine.kernel.source_plan import SourcePlan as SourcePlan
from exengine.kernel.storage.managed import ManagedStorage as ManagedStorage
from exengine.kernel.storage.reading import DatasetReader as DatasetReader
from exengine.kernel.storage.reading import IndexedStorage as IndexedStorage

__version__: str
