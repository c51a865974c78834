//! `set` and `remove` of every noun: a change of one definition, planned, shown and committed like a model file.

use postroom_proto::v1;

use super::{Session, model};
use crate::args::{Keys, Remove, Set, SetQueue};
use crate::error::{Error, Kind};
use crate::model_file::edit::{self, Edit};

/// A kind of definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Instance,
    IncomingServer,
    OutgoingServer,
    Queue,
}

impl Noun {
    fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::IncomingServer => "incoming-server",
            Self::OutgoingServer => "outgoing-server",
            Self::Queue => "queue",
        }
    }

    /// Its key in the model file.
    fn section(self) -> &'static str {
        match self {
            Self::Instance => "instances",
            Self::IncomingServer => "incomingServers",
            Self::OutgoingServer => "outgoingServers",
            Self::Queue => "queues",
        }
    }

    /// The model with nothing but the definition of this name; empty when there is none.
    fn only(self, all: v1::Model, name: &str) -> v1::Model {
        let mut one = v1::Model::default();
        match self {
            Self::Instance => one.instances.extend(all.instances.into_iter().find(|it| it.name == name)),
            Self::IncomingServer => {
                one.incoming_servers.extend(all.incoming_servers.into_iter().find(|it| it.name == name));
            }
            Self::OutgoingServer => {
                one.outgoing_servers.extend(all.outgoing_servers.into_iter().find(|it| it.name == name));
            }
            Self::Queue => one.queues.extend(all.queues.into_iter().find(|it| it.name == name)),
        }
        one
    }

    fn rename(self, model: &mut v1::Model, name: &str) {
        model.instances.iter_mut().for_each(|it| it.name = name.to_owned());
        model.incoming_servers.iter_mut().for_each(|it| it.name = name.to_owned());
        model.outgoing_servers.iter_mut().for_each(|it| it.name = name.to_owned());
        model.queues.iter_mut().for_each(|it| it.name = name.to_owned());
    }
}

pub(super) async fn set(session: &mut Session<'_, '_>, noun: Noun, args: &Set) -> Result<(), Error> {
    let edit = Edit { pairs: &args.keys.pairs, unset: &args.keys.unset, ..Edit::default() };
    change(session, noun, args, &edit).await
}

pub(super) async fn set_queue(session: &mut Session<'_, '_>, args: &SetQueue) -> Result<(), Error> {
    let edit = Edit {
        pairs: &args.set.keys.pairs,
        unset: &args.set.keys.unset,
        address: args.address.as_deref(),
        remove_addresses: &args.remove_address,
    };
    change(session, Noun::Queue, &args.set, &edit).await
}

pub(super) async fn set_system(session: &mut Session<'_, '_>, keys: &Keys) -> Result<(), Error> {
    let exported = session.client()?.export_model().await?;
    let current = v1::Model { system: exported.model.unwrap_or_default().system, ..Default::default() };
    let edit = Edit { pairs: &keys.pairs, unset: &keys.unset, ..Edit::default() };
    let model = edit::edit(&current, "system", None, &edit, session.environment)?;
    let request =
        v1::ApplyModelRequest { model: Some(model), etag: exported.revision.to_string(), ..Default::default() };
    model::commit(session, request, keys.dry_run, |fault| edit::below("system", fault)).await
}

async fn change(session: &mut Session<'_, '_>, noun: Noun, args: &Set, edit: &Edit<'_>) -> Result<(), Error> {
    let exported = session.client()?.export_model().await?;
    let current = noun.only(exported.model.unwrap_or_default(), &args.name);
    let exists = current != v1::Model::default();
    if exists && args.create {
        let message = format!("there is a {} {:?} already", noun.name(), args.name);
        return Err(Error::new(Kind::Conflict, message).help("leave out --create to change it, or write another name"));
    }
    if !exists && !args.create {
        let message = format!("there is no {} {:?}", noun.name(), args.name);
        let help = format!("see `postroom {} list`; add --create to define a new one", noun.name());
        return Err(Error::new(Kind::NotFound, message).help(help));
    }
    let mut model = edit::edit(&current, noun.section(), Some(&args.name), edit, session.environment)?;
    let mut renames = Vec::new();
    if let Some(new_name) = &args.new_name {
        noun.rename(&mut model, new_name);
        let definition = v1::DefinitionName { noun: noun.name().into(), name: args.name.clone() };
        renames.push(v1::Rename { definition: Some(definition), new_name: new_name.clone() });
    }
    let etag = exported.revision.to_string();
    let request = v1::ApplyModelRequest { model: Some(model), etag, renames, ..Default::default() };
    model::commit(session, request, args.keys.dry_run, |fault| edit::below(noun.section(), fault)).await
}

pub(super) async fn remove(session: &mut Session<'_, '_>, noun: Noun, args: &Remove) -> Result<(), Error> {
    let removals = vec![v1::DefinitionName { noun: noun.name().into(), name: args.name.clone() }];
    let request = v1::ApplyModelRequest { removals, ..Default::default() };
    model::commit(session, request, args.dry_run, |fault| fault).await
}
