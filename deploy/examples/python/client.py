"""Takes the contacts of one instance, works on each, and ends it: a client of Postroom to start from.

take (AllocateContacts) -> keep -> accept (AcceptContacts) -> work -> end (EndContacts)

What is taken must be accepted before its deadline, or it goes to somebody else. What is accepted is yours until you end
it. So keep a contact in your own system before you accept it, under its id: when you crash in between, it comes again.
"""

import argparse
import signal
import sys
import time
import uuid

import grpc
from google.protobuf import duration_pb2
from postroom.v1 import contact_pb2 as pb
from postroom.v1 import contact_pb2_grpc

import context
from failure import Decision, decide

# How long an answer may take, beside what the call itself asks to wait.
DEADLINE = 10.0


class Stopped(Exception):
    """SIGTERM or SIGINT came while something could be left undone."""


class Fatal(Exception):
    """Somebody has to mend something."""


class Client:
    def __init__(self, arguments: argparse.Namespace) -> None:
        channel, self.metadata = context.connect(arguments)
        self.stub = contact_pb2_grpc.ContactServiceStub(channel)
        self.arguments = arguments
        self.stopping = False
        self.patience = float("inf")

    def stop(self, *_) -> None:
        self.stopping = True
        self.patience = time.monotonic() + DEADLINE

    def call(self, method, request, wait: float = 0.0, until_stopped: bool = False):
        """Calls until there is an answer, or a failure that no repetition mends.

        Every call may be repeated: contacts are told apart by id and request_id, so a lost answer does nothing twice.
        """
        attempt = 0
        while True:
            answer = method.future(request, timeout=DEADLINE + wait, metadata=self.metadata)
            try:
                while True:
                    try:
                        return answer.result(timeout=0.2)
                    except grpc.FutureTimeoutError:
                        self.leave(until_stopped, answer)
            except grpc.RpcError as error:
                decision, delay = decide(error, attempt)
                say(f"{error.code().name}: {error.details()} -> {decision.name}")
                if decision is Decision.RETRY and time.monotonic() > self.patience:
                    raise Fatal("stopped while nobody answers; what is held goes back at its deadline") from error
                if decision is not Decision.RETRY:
                    raise Fatal(f"{error.details()}: {decision.value}") from error
            attempt += 1
            until = time.monotonic() + delay
            while time.monotonic() < until:
                time.sleep(min(0.2, delay))
                self.leave(until_stopped)

    def leave(self, until_stopped: bool, answer=None) -> None:
        if until_stopped and self.stopping:
            if answer:
                answer.cancel()
            raise Stopped

    def take(self) -> tuple[str, list]:
        """Waits for contacts. One request_id for each taking, the same for each repetition of it."""
        request = pb.AllocateContactsRequest(
            instance=self.arguments.instance,
            max_count=self.arguments.max,
            wait=seconds(self.arguments.wait),
            request_id=str(uuid.uuid4()),
            accept_within=seconds(self.arguments.accept_within),
        )
        try:
            answer = self.call(self.stub.AllocateContacts, request, self.arguments.wait, until_stopped=True)
        except Stopped:
            # The call was cancelled, but may have come through: asked again, it tells what it had taken.
            request.ClearField("wait")
            answer = self.call(self.stub.AllocateContacts, request)
        return request.request_id, list(answer.contacts)

    def handle(self, request_id: str, contacts: list) -> None:
        """Accepts and ends what was taken, best first. When told to stop, gives the rest back."""
        held = list(contacts)
        due = time.monotonic() + self.arguments.accept_within
        while held:
            if self.stopping:
                self.tell("rejected", self.stub.RejectContacts, pb.RejectContactsRequest, request_id, held)
                return
            if due - time.monotonic() < self.arguments.accept_within / 2:
                # What waits behind a long piece of work would be lost: ask for more time while it is yours.
                more = {"accept_within": seconds(self.arguments.accept_within)}
                due = time.monotonic() + self.arguments.accept_within
                held = self.tell("extended", self.stub.ExtendContacts, pb.ExtendContactsRequest, request_id, held, **more)
                continue
            contact = held.pop(0)
            if not self.keep(contact):
                held.insert(0, contact)
                continue
            if self.tell("accepted", self.stub.AcceptContacts, pb.AcceptContactsRequest, request_id, [contact]):
                self.finish(contact)

    def keep(self, contact) -> bool:
        """Where your own system stores the contact, by `contact.id`. It may be one that you have already."""
        until = time.monotonic() + self.arguments.work
        while time.monotonic() < until:
            if self.stopping:
                return False
            time.sleep(min(0.05, self.arguments.work))
        return True

    def finish(self, contact) -> None:
        """The work on an accepted contact would stand here."""
        done = {"outcome": "answered"}
        self.tell("ended", self.stub.EndContacts, pb.EndContactsRequest, contact.allocation.request_id, [contact], **done)

    def resume(self) -> None:
        """Accepted before a crash of this client, and not ended: they are still yours."""
        request = pb.ListContactsRequest(instance=self.arguments.instance, state=pb.CONTACT_STATE_ACCEPTED)
        while not self.stopping:
            page = self.call(self.stub.ListContacts, request)
            for contact in page.contacts:
                self.finish(contact)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def tell(self, done: str, method, kind, request_id: str, contacts: list, **fields) -> list:
        """Answers for contacts; returns those for which it was done. Outcomes are per contact."""
        # Naming the request_id, a late answer cannot touch what was handed to somebody else meanwhile.
        named = [pb.AllocatedContact(contact=contact.id, request_id=request_id) for contact in contacts]
        answer = self.call(method, kind(instance=self.arguments.instance, contacts=named, **fields))
        still = []
        for contact, outcome in zip(contacts, answer.outcomes, strict=True):
            if outcome.reason:
                # Its deadline passed, or a person moved it. It is not yours: undo what you did with it.
                print(f"lost {contact.id} {outcome.reason} {contact.content.subject}", flush=True)
            else:
                print(f"{done} {contact.id} {contact.content.subject}", flush=True)
                still.append(contact)
        return still

    def run(self) -> None:
        self.resume()
        while not self.stopping:
            request_id, contacts = self.take()
            for contact in contacts:
                print(f"taken {contact.id} {contact.content.subject}", flush=True)
            self.handle(request_id, contacts)


def seconds(value: float) -> duration_pb2.Duration:
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=int((value - whole) * 1e9))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    context.add_arguments(parser)
    parser.add_argument("--instance", required=True, help="instance to take contacts for")
    parser.add_argument("--max", type=int, default=10, help="most contacts to hold at a time, 1 to 500")
    parser.add_argument("--wait", type=float, default=20.0, help="seconds to wait for a contact, at most 30")
    parser.add_argument("--accept-within", type=float, default=120.0, help="seconds to accept what was taken, 1 to 3600")
    parser.add_argument("--work", type=float, default=0.0, help="seconds that keeping a contact takes, to play with")
    client = Client(parser.parse_args())
    signal.signal(signal.SIGTERM, client.stop)
    signal.signal(signal.SIGINT, client.stop)
    try:
        client.run()
    except Fatal as error:
        say(f"error: {error}")
        return 1
    say("stopped; nothing is held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
