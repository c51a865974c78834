//! Takes the contacts of one instance, works on each, and ends it: a client of Postroom to start from.
//!
//! take (`AllocateContacts`) → keep → accept (`AcceptContacts`) → work → end (`EndContacts`)
//!
//! What is taken must be accepted before its deadline, or it goes to somebody else. What is accepted is yours until you
//! end it. So keep a contact in your own system before you accept it, under its id: when you crash in between, it comes
//! again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it does is what it shows")]

mod context;
mod failure;

use std::time::Duration;

use anyhow::bail;
use clap::Parser as _;
use postroom_proto::convert::to_duration;
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::{self, AllocatedContact, Contact, ContactOutcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::failure::{Decision, decide};

/// How long an answer may take, beside what the call itself asks to wait.
const DEADLINE: Duration = Duration::from_secs(10);

/// Takes the contacts of one instance, accepts and ends them.
#[derive(Debug, clap::Parser)]
struct Settings {
    #[command(flatten)]
    connection: context::Connection,
    /// Instance to take contacts for.
    #[arg(long, value_name = "NAME")]
    instance: String,
    /// Most contacts to hold at a time, 1 to 500.
    #[arg(long, value_name = "N", default_value = "10")]
    max: u32,
    /// Seconds to wait for a contact, at most 30.
    #[arg(long, value_name = "S", default_value = "20")]
    wait: f64,
    /// Seconds to accept what was taken, 1 to 3600.
    #[arg(long, value_name = "S", default_value = "120")]
    accept_within: f64,
    /// Seconds that keeping a contact takes, to play with.
    #[arg(long, value_name = "S", default_value = "0")]
    work: f64,
}

/// What is done with contacts that are held. Every one of these answers per contact.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Accept,
    Extend,
    Reject,
    End,
}

struct Client {
    settings: Settings,
    stub: ContactServiceClient<Channel>,
    bearer: MetadataValue<Ascii>,
    /// Since when it is to stop.
    stopping: watch::Receiver<Option<Instant>>,
}

impl Client {
    fn is_stopping(&self) -> bool {
        self.stopping.borrow().is_some()
    }

    /// Ends when it is to stop.
    async fn stopped(&self) {
        // An error means that nobody can tell any more, which only happens at the end.
        let _ = self.stopping.clone().wait_for(Option::is_some).await;
    }

    /// Calls until there is an answer, or a failure that no repetition mends.
    ///
    /// Every call may be repeated: contacts are told apart by id and `request_id`, so a lost answer does nothing twice.
    async fn call<Req: Clone, Res>(
        &self,
        wait: Duration,
        request: Req,
        call: impl AsyncFn(ContactServiceClient<Channel>, Request<Req>) -> Result<Response<Res>, Status>,
    ) -> anyhow::Result<Res> {
        for attempt in 0.. {
            let mut bearing = Request::new(request.clone());
            bearing.metadata_mut().insert("authorization", self.bearer.clone());
            let late = |_| Err(Status::deadline_exceeded("no answer in time"));
            let status = match timeout(DEADLINE + wait, call(self.stub.clone(), bearing)).await.unwrap_or_else(late) {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let decision = decide(&status, attempt);
            eprintln!("{:?}: {} -> {decision:?}", status.code(), status.message());
            let Decision::Retry(delay) = decision else { bail!("{}: {decision:?}", status.message()) };
            if self.stopping.borrow().is_some_and(|since| since.elapsed() > DEADLINE) {
                bail!("stopped while nobody answers; what is held goes back at its deadline");
            }
            sleep(delay).await;
        }
        bail!("out of attempts")
    }

    /// Waits for contacts. One `request_id` for each taking, the same for each repetition of it.
    async fn take(&self) -> anyhow::Result<(String, Vec<Contact>)> {
        let wait = Duration::from_secs_f64(self.settings.wait);
        let mut request = v1::AllocateContactsRequest {
            instance: self.settings.instance.clone(),
            max_count: self.settings.max,
            wait: Some(to_duration(wait)),
            request_id: uuid::Uuid::new_v4().to_string(),
            accept_within: Some(to_duration(self.accept_within())),
        };
        let taking = self.call(wait, request.clone(), async |mut stub, r| stub.allocate_contacts(r).await);
        let answer = tokio::select! {
            answer = taking => answer?,
            () = self.stopped() => {
                // The call was cancelled, but may have come through: asked again, it tells what it had taken.
                request.wait = None;
                let again = async |mut stub: ContactServiceClient<_>, r| stub.allocate_contacts(r).await;
                self.call(Duration::ZERO, request.clone(), again).await?
            }
        };
        Ok((request.request_id, answer.contacts))
    }

    fn accept_within(&self) -> Duration {
        Duration::from_secs_f64(self.settings.accept_within)
    }

    /// Accepts and ends what was taken, best first. When told to stop, gives the rest back.
    async fn handle(&self, request_id: &str, contacts: Vec<Contact>) -> anyhow::Result<()> {
        let mut due = Instant::now() + self.accept_within();
        let mut held = contacts;
        while !held.is_empty() {
            if self.is_stopping() {
                self.tell(Answer::Reject, request_id, held).await?;
                return Ok(());
            }
            if due.saturating_duration_since(Instant::now()) < self.accept_within() / 2 {
                // What waits behind a long piece of work would be lost: ask for more time while it is yours.
                due = Instant::now() + self.accept_within();
                held = self.tell(Answer::Extend, request_id, held).await?;
                continue;
            }
            // Where your own system stores the contact, by its id. It may be one that you have already.
            tokio::select! {
                () = sleep(Duration::from_secs_f64(self.settings.work)) => {}
                () = self.stopped() => continue,
            }
            let contact = held.remove(0);
            for contact in self.tell(Answer::Accept, request_id, vec![contact]).await? {
                self.finish(contact).await?;
            }
        }
        Ok(())
    }

    /// The work on an accepted contact would stand here.
    async fn finish(&self, contact: Contact) -> anyhow::Result<()> {
        let request_id = contact.allocation.as_ref().map(|held| held.request_id.clone()).unwrap_or_default();
        self.tell(Answer::End, &request_id, vec![contact]).await?;
        Ok(())
    }

    /// Answers for contacts; returns those for which it was done.
    async fn tell(&self, answer: Answer, request_id: &str, contacts: Vec<Contact>) -> anyhow::Result<Vec<Contact>> {
        // Naming the request_id, a late answer cannot touch what was handed to somebody else meanwhile.
        let name = |contact: &Contact| AllocatedContact { contact: contact.id.clone(), request_id: request_id.into() };
        let (instance, named) = (self.settings.instance.clone(), contacts.iter().map(name).collect());
        let (done, outcomes) = match answer {
            Answer::Accept => {
                let request = v1::AcceptContactsRequest { instance, contacts: named };
                let call = async |mut stub: ContactServiceClient<_>, r| stub.accept_contacts(r).await;
                ("accepted", self.call(Duration::ZERO, request, call).await?.outcomes)
            }
            Answer::Extend => {
                let accept_within = Some(to_duration(self.accept_within()));
                let request = v1::ExtendContactsRequest { instance, contacts: named, accept_within };
                let call = async |mut stub: ContactServiceClient<_>, r| stub.extend_contacts(r).await;
                ("extended", self.call(Duration::ZERO, request, call).await?.outcomes)
            }
            Answer::Reject => {
                let request = v1::RejectContactsRequest { instance, contacts: named };
                let call = async |mut stub: ContactServiceClient<_>, r| stub.reject_contacts(r).await;
                ("rejected", self.call(Duration::ZERO, request, call).await?.outcomes)
            }
            Answer::End => {
                let request = v1::EndContactsRequest { instance, contacts: named, outcome: "answered".into() };
                let call = async |mut stub: ContactServiceClient<_>, r| stub.end_contacts(r).await;
                ("ended", self.call(Duration::ZERO, request, call).await?.outcomes)
            }
        };
        let mut still = Vec::new();
        for (contact, ContactOutcome { reason, .. }) in contacts.into_iter().zip(outcomes) {
            let subject = contact.content.as_ref().map_or("", |content| &content.subject);
            if reason.is_empty() {
                println!("{done} {} {subject}", contact.id);
                still.push(contact);
            } else {
                // Its deadline passed, or a person moved it. It is not yours: undo what you did with it.
                println!("lost {} {reason} {subject}", contact.id);
            }
        }
        Ok(still)
    }

    /// Accepted before a crash of this client, and not ended: they are still yours.
    async fn resume(&self) -> anyhow::Result<()> {
        let mut request = v1::ListContactsRequest {
            instance: self.settings.instance.clone(),
            state: v1::ContactState::Accepted.into(),
            ..Default::default()
        };
        while !self.is_stopping() {
            let list = async |mut stub: ContactServiceClient<_>, r| stub.list_contacts(r).await;
            let page = self.call(Duration::ZERO, request.clone(), list).await?;
            for contact in page.contacts {
                self.finish(contact).await?;
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        Ok(())
    }

    async fn run(&self) -> anyhow::Result<()> {
        self.resume().await?;
        while !self.is_stopping() {
            let (request_id, contacts) = self.take().await?;
            for contact in &contacts {
                println!("taken {} {}", contact.id, contact.content.as_ref().map_or("", |content| &content.subject));
            }
            self.handle(&request_id, contacts).await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopping) = watch::channel(None);
    let (channel, bearer) = context::connect(&settings.connection)?;
    // An answer with contacts has up to 4 MiB and a little around it.
    let stub = ContactServiceClient::new(channel).max_decoding_message_size(8 << 20);
    let client = Client { settings, stub, bearer, stopping };
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(Some(Instant::now()));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = client.run() => ended?,
        () = told => {}
    }
    eprintln!("stopped; nothing is held");
    Ok(())
}
