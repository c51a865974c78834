//! Whether a mailbox may send by Microsoft Graph, asked without sending.

use http::Method;
use postroom_proto::v1::OutgoingDefinition;
use serde_json::json;

use super::api::{Api, Body};
use crate::send::Sending;
use crate::send::claim::Broken;
use crate::send::verdict::Fault;
use crate::send::verdict::graph::Step;

/// A mail to nobody: where the right to send is there, Graph refuses it for its recipients (ErrorInvalidRecipients), and
/// where it is not, for the right (ErrorAccessDenied), which it looks at first. So says its documentation; it was not run
/// against Microsoft.
pub(crate) async fn may_send(sending: &Sending, definition: &OutgoingDefinition) -> Result<String, Fault> {
    let body = json!({"contentType": "text", "content": ""});
    let mail = json!({"message": {"subject": "", "body": body, "toRecipients": []}, "saveToSentItems": false});
    let mut api = Api::open(sending, definition).await?;
    match api.ask(Step::Send, Method::POST, &["sendMail"], &[], Body::Json(mail)).await {
        Ok(answer) => Ok(format!("a mail to nobody was taken: {}", answer.response)),
        Err(Broken::Fault(fault, _)) if fault.found.code == "RECIPIENT_REFUSED" => {
            Ok("a mail to nobody is refused for its recipients, not for the right to send".to_owned())
        }
        Err(Broken::Fault(fault, _) | Broken::Lost(fault)) => Err(fault),
        Err(Broken::ClaimLost) => Err(Fault::of_server(crate::diagnosis::defect("a check has no claim"))),
    }
}
