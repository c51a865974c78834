//! Of which instances a caller may see and touch what there is.

use std::sync::Arc;

use postroom_proto::reason::{Failure, Reason};
use tokio::sync::watch;

use crate::access::role::Role;
use crate::definition::model::{Instance, Model};

/// Knows the instances of the model.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) model: watch::Receiver<Arc<Model>>,
}

impl Scope {
    /// An instance that the caller may serve.
    pub(super) fn instance(&self, role: &Role, name: &str) -> Result<Arc<Instance>, Failure> {
        if !role.may_serve(name) {
            let text = format!("the role {role} may not touch what is of instance {name}");
            return Err(Failure::new(Reason::PermissionDenied, text));
        }
        let model = self.model.borrow();
        let instance = model.instance(name).ok_or_else(|| {
            Failure::new(Reason::NotFound, format!("there is no instance {name:?}; see `postroom instance list`"))
        })?;
        Ok(instance.clone())
    }

    /// The uid of the instance that is asked for. `None`: all of them.
    pub(super) fn instance_or_all(&self, role: &Role, name: &str) -> Result<Option<String>, Failure> {
        match (name, role) {
            ("", Role::Instance(own)) => {
                Err(Failure::invalid_field("instance", format!("is empty; name your own, {own}")))
            }
            ("", _) => Ok(None),
            (name, _) => Ok(Some(self.instance(role, name)?.uid.clone())),
        }
    }

    /// The uid of the only instance whose things the caller may see. `None`: of all.
    pub(super) fn only(&self, role: &Role) -> Result<Option<String>, Failure> {
        match role {
            Role::Instance(own) => Ok(Some(self.instance(role, own)?.uid.clone())),
            Role::Admin | Role::Operator | Role::Viewer | Role::Worker(_) => Ok(None),
            Role::Enrolling(_) => {
                let text = format!("the role {role} may not touch what is of an instance");
                Err(Failure::new(Reason::PermissionDenied, text))
            }
        }
    }

    /// True when the caller may see what is of this instance.
    pub(super) fn may_see(&self, role: &Role, instance_uid: &str) -> bool {
        self.only(role).is_ok_and(|only| only.is_none_or(|only| only == instance_uid))
    }
}
