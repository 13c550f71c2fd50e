"""URLs of datasets, the stores to which they refer, and the messages for failed requests.

Credentials come from the environment only. A URL that contains credentials is refused, because a dataset
records its own URL. No message contains the text of a request, because the URL in it may contain a signature.
"""

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from exengine.errors import (
    ConfigError,
    DatasetAccessError,
    ExEngineError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_CODE = re.compile(r"<Code>(\w{1,80})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_NO_ACCESS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_INSTANCE_METADATA = "169.254."  # the host that provides credentials to virtual machines in a cloud
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_SAME_AS = {"s3a": "s3", "adl": "az", "azure": "az", "abfs": "az", "abfss": "az"}


class AccessRefusedError(DatasetAccessError):
    """Raised if the store refuses a request permanently. Other errors may be temporary."""


def check_url(url: str) -> str:
    """Return the URL of a dataset without a final slash.

    Raises
    ------
    ConfigError
        If the URL contains credentials or a query, or does not refer to a dataset in a bucket.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError("the URL of a dataset cannot be parsed; write it as s3://bucket/name") from None
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"the URL {shown} must contain neither credentials nor a query, because the dataset records its "
            "own URL; set credentials in the environment"
        )
    if parts.scheme in ("file", "memory"):
        raise ConfigError(f"the URL {shown} does not refer to an object store; pass the path of a folder")
    names = [name for name in parts.path.split("/") if name]
    if not names or not parts.netloc:
        raise ConfigError(
            f"the URL {shown} does not refer to a dataset; write it as s3://bucket/name.ome.zarr"
        )
    if any(name in (".", "..") for name in names):
        raise ConfigError(f"the URL {shown} contains '.' or '..'; write the name of the dataset itself")
    return url.rstrip("/")


def host_of(url: str) -> str:
    """Return the name of the host that serves a URL, for use in messages."""
    parts = urlsplit(url)
    if parts.scheme in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return urlsplit(endpoint).netloc.rpartition("@")[2] if endpoint else "Amazon S3"
    return parts.netloc.rpartition("@")[2]


def connect(url: str, *, patient: bool) -> "ObjectStore":
    """Return the store at a URL. All object names are relative to the URL.

    Parameters
    ----------
    url : str
    patient : bool
        Whether requests may take a long time, as uploads do. If not, each request ends within 10 seconds.

    Raises
    ------
    UnsupportedOperationError
        If obstore is not installed.
    ConfigError, DatasetAccessError
        If the URL does not refer to a store.
    """
    try:
        from obstore.store import from_url
    except ImportError:
        raise UnsupportedOperationError(
            f"{url} is in object storage, which needs obstore; install it with: pip install obstore"
        ) from None
    client: ClientConfig = {"connect_timeout": "2500ms", "timeout": "120s" if patient else "4s"}
    if os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on"):
        client["allow_http"] = True
    retries: RetryConfig = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=10 if patient else 3),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=1),
            "base": 2,
        },
    }
    try:
        store: Any = from_url(url, client_options=client, retry_config=retries)
    except Exception as error:
        raise explain(error, url, "be opened") from None
    return store  # type: ignore[no-any-return]  # the overloads of from_url differ per store


def explain(error: BaseException, url: str, what: str) -> ExEngineError:
    """Return the error for a request that failed.

    Parameters
    ----------
    error : BaseException
        The error from obstore. Its text is not passed on.
    url : str
    what : str
        The action that failed, such as ``"be read"``.
    """
    text, kind = str(error), type(error).__name__
    host, scheme = host_of(url), urlsplit(url).scheme
    scheme = _SAME_AS.get(scheme, scheme)
    keys = _KEYS.get(scheme, "the credentials")
    code = _CODE.search(text)
    status = _STATUS.search(text)
    name = code[1] if code else f"status {status[1]}" if status else kind
    failed = f"{url} cannot {what}"
    if "Unable to recognise URL" in text:
        return ConfigError(f"{url} does not refer to an object store; write it as s3://bucket/name.ome.zarr")
    if "BadScheme" in text:
        return AccessRefusedError(
            f"{failed}: the connection to {host} is not encrypted; set AWS_ALLOW_HTTP=true to allow this"
        )
    if _INSTANCE_METADATA in text:
        return AccessRefusedError(
            f"{failed}: no credentials for {host} were found; set {keys} in the environment"
        )
    if name == "NoSuchBucket":
        return AccessRefusedError(
            f"{failed}: {host} has no bucket {urlsplit(url).netloc!r}; create it, or correct the URL"
        )
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or name in (
        *_NO_ACCESS,
        "status 401",
        "status 403",
    ):
        return AccessRefusedError(
            f"{failed}: {host} denies access ({name}); set {keys} in the environment to those of an account "
            "that may use this bucket"
        )
    if kind == "NotSupportedError" or name in ("NotImplemented", "status 501"):
        return UnsupportedOperationError(f"{failed}: {host} does not support a required operation")
    if "error sending request" in text or "timed out" in text or "HttpError" in text:
        return DatasetAccessError(
            f"{failed}: {host} does not respond; check the network"
            f"{' and AWS_ENDPOINT_URL' if scheme == 's3' else ''}"
        )
    return DatasetAccessError(f"{failed}: {host} reports {name}; try again, and check the store")
