"""What S3 and its client library say, in this project's words.

The library's own texts are dropped: servers put access keys, and what was signed, into theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import urllib3.exceptions
from botocore import exceptions as boto

from rocktop_ray.errors import (
    BucketMissingError,
    ObjectChangedError,
    ObjectMissingError,
    SettingsError,
    StorageDeniedError,
    StorageError,
    StorageTimeoutError,
    StorageUnavailableError,
)

_MISSING = {"404", "NoSuchKey", "NotFound"}
_DENIED = {
    *("401", "403", "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "AccountProblem", "Forbidden", "Unauthorized", "AuthorizationHeaderMalformed"),
}
_CHANGED = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
_BUSY = {
    "429",
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
}
_TIMEOUTS = (boto.ConnectTimeoutError, boto.ReadTimeoutError, urllib3.exceptions.TimeoutError, TimeoutError)
_BROKEN = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, urllib3.exceptions.HTTPError)
BREAKS = (*_TIMEOUTS, *_BROKEN, ConnectionError)
"""Errors of the connection, after which the rest of an object may be asked for again."""


@contextmanager
def s3_errors(place: str) -> Iterator[None]:
    """Turn errors of boto3 into StorageError; ``place`` names bucket and key."""
    try:
        yield
    except boto.ClientError as error:
        raise from_reply(error, place) from None
    except BREAKS as error:
        raise from_break(error, place) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError):
        raise StorageDeniedError(f"no credentials for {place}; set S3_ACCESS_KEY and S3_SECRET_KEY") from None
    except (boto.ParamValidationError, boto.InvalidRegionError, boto.InvalidEndpointConfigurationError, ValueError):
        raise SettingsError(f"the S3 settings for {place} are not valid; check endpoint, region and bucket") from None
    except (KeyError, boto.DataNotFoundError):
        raise StorageError(f"the server for {place} does not speak S3; check S3_ENDPOINT_URL") from None
    except boto.BotoCoreError as error:
        raise StorageError(f"the S3 client failed for {place} ({type(error).__name__})") from None


def from_reply(error: boto.ClientError, place: str) -> StorageError:
    """The error of an answer that says no."""
    code = str(error.response.get("Error", {}).get("Code", ""))[:60]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"(S3 says {code if code.isalnum() else status})"
    if code == "NoSuchBucket":
        return BucketMissingError(f"no such bucket for {place} {said}; check S3_BUCKET_NAME and the endpoint")
    if code == "RequestTimeTooSkewed":
        return StorageDeniedError(f"the clock of this machine is wrong, so S3 refuses {place} {said}")
    if code in _MISSING:
        return ObjectMissingError(f"no object {place} {said}")
    if code in _CHANGED or status == 412:
        return ObjectChangedError(f"{place} is not the object expected, or exists already {said}")
    if code in _BUSY or status == 429 or status >= 500:
        return StorageUnavailableError(f"the store is busy or down for {place} {said}; try again later")
    if code in _DENIED or status in (401, 403):
        return StorageDeniedError(f"the store refuses the credentials for {place} {said}")
    if status == 404:
        return ObjectMissingError(f"no object {place} {said}")
    return StorageError(f"the store refuses {place} {said}")


def from_break(error: Exception, place: str) -> StorageError:
    """The error of a connection that broke, or never was."""
    if isinstance(error, _TIMEOUTS):
        return StorageTimeoutError(f"the store does not answer in time for {place}; try again later")
    return StorageUnavailableError(f"the store cannot be reached for {place}; check S3_ENDPOINT_URL or try again later")
