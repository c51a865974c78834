//! Error names of OAuth (RFC 6749 section 5.2) and of HTTP, for token endpoints that say no AADSTS number, or one that
//! [`super::entra`] does not know: numbers come and go, the names stay.

super::entries! {
    INVALID_GRANT: Credential,
        "the token endpoint refused account or password",
        "",
        "check account and password of the address";
    INTERACTION_REQUIRED: Interaction,
        "somebody would have to sign in at a screen",
        "",
        "use OAuth Service for this mailbox: it signs in without a person";
    LOGIN_REQUIRED: Interaction,
        "somebody would have to sign in at a screen",
        "",
        "use OAuth Service for this mailbox: it signs in without a person";
    CONSENT_REQUIRED: Consent,
        "nobody has consented to the application",
        "",
        "grant admin consent in the app registration's API permissions";
    INVALID_CLIENT: Configuration,
        "the token endpoint refused client id or secret",
        "",
        "check client id and secret of the incoming server";
    UNAUTHORIZED_CLIENT: Configuration,
        "the application may not sign in this way",
        "",
        "allow this way of signing in for the application at the identity provider";
    INVALID_SCOPE: Configuration,
        "the token endpoint does not know the scope",
        "",
        "check the incoming server's `scope`";
    INVALID_RESOURCE: Configuration,
        "the token endpoint does not know the resource of the scope",
        "",
        "check the incoming server's `scope`";
    UNSUPPORTED_GRANT_TYPE: Configuration,
        "the token endpoint does not give tokens in this way",
        "",
        "choose another `authentication` for the incoming server, or allow this one at the identity provider";
    INVALID_REQUEST: Configuration,
        "the token request is incomplete or malformed",
        "",
        "compare the incoming server's address, client id and scope with the registration";
    TEMPORARILY_UNAVAILABLE: Transient,
        "the token endpoint has a passing fault",
        "",
        "nothing to do: it is tried again";
    SERVER_ERROR: Transient,
        "the token endpoint has a passing fault",
        "",
        "nothing to do: it is tried again";
    TOKEN_REQUEST_REFUSED: Configuration,
        "the token endpoint refused for a reason that is not known here",
        "",
        "compare the incoming server's address, client id and scope with the registration";
    HTTP_429: Throttled,
        "the token endpoint asks to slow down",
        "",
        "nothing to do: it is tried again later";
    HTTP_500: Transient,
        "the token endpoint, or what stands before it, has a fault",
        "",
        "nothing to do: it is tried again; if it lasts, look at the identity provider's health";
}
