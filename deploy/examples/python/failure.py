"""What to do about a call that failed: one function decides, from what the control plane says."""

import enum
import random

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Decision(enum.Enum):
    RETRY = "repeat the same call, with the same ids, after a while"
    TAKE_AGAIN = "drop these contacts, they are not yours any more, and take others"
    FIX = "stop: the request, the token or the settings are wrong, and repeating it helps nobody"
    GIVE_UP = "stop: a defect; tell the operator what the message says"


# Reasons are values of Reason in error.proto, without their prefix. A newer control plane may know more of them: what is
# not listed here is judged by its gRPC code.
BY_REASON = {
    "OUTCOME_UNKNOWN": Decision.RETRY,
    "NO_LEADER": Decision.RETRY,
    "NOT_CAUGHT_UP": Decision.RETRY,
    "STORAGE_FAILED": Decision.RETRY,
    "SHUTTING_DOWN": Decision.RETRY,
    "TOO_MANY": Decision.RETRY,
    "ALLOCATION_LOST": Decision.TAKE_AGAIN,
    "WRONG_STATE": Decision.TAKE_AGAIN,
    "NOT_FOUND": Decision.FIX,
    "INVALID_FIELD": Decision.FIX,
    "UNAUTHENTICATED": Decision.FIX,
    "PERMISSION_DENIED": Decision.FIX,
    "INTERNAL": Decision.GIVE_UP,
}

# Also for failures that the control plane never saw: no connection, a proxy, a deadline that passed.
BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: Decision.RETRY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Decision.RETRY,
    grpc.StatusCode.CANCELLED: Decision.RETRY,
    grpc.StatusCode.UNKNOWN: Decision.RETRY,
    grpc.StatusCode.ABORTED: Decision.TAKE_AGAIN,
    grpc.StatusCode.INTERNAL: Decision.GIVE_UP,
}


def decide(error: grpc.RpcError, attempt: int) -> tuple[Decision, float]:
    """The decision, and how many seconds to wait before a retry. `attempt` counts from 0."""
    reason, least = None, 0.0
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == "postroom":
            reason = info.reason
        elif detail.Unpack(retry):
            least = retry.retry_delay.ToTimedelta().total_seconds()
    # Without bounds on both sides, a thousand clients would come back in the same moment, or never.
    backoff = min(0.1 * 2**min(attempt, 10), 5.0) * random.uniform(0.5, 1.0)
    decision = BY_REASON.get(reason) or BY_CODE.get(error.code(), Decision.FIX)
    return decision, max(least, backoff)
