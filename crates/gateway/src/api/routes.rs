//! Every endpoint: how it is reached, how it is described, and what answers.

use adit_control::model::Kind;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use super::problem::Problem;
use super::{Api, about, audit, batch, credentials, enrolling, explain, resources, watch};

/// Of whoever asks; the one that needs no right.
pub(super) const WHOAMI: &str = "/v1/whoami";
/// For whoever has an invitation.
pub(super) const ENROLL: &str = "/v1/enroll";
/// For whoever has a certificate.
pub(super) const RENEW: &str = "/v1/renew";
/// Where the configuration file is read again.
pub(super) const RELOAD: &str = "/-/reload";
const JSON: &str = "application/json";
pub(super) const LINES: &str = "application/x-ndjson";
/// What metrics call a path that there is not.
const OTHER: &str = "/v1/other";

/// What an endpoint takes as its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// A component of the description, by its name.
    Document(&'static str),
    /// The same, and it may be left out.
    Optional(&'static str),
}

/// What it answers when all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// A component of the description, by its name.
    Json(&'static str),
    /// One with an `ETag`.
    Tagged(&'static str),
    /// Something else than JSON.
    Media(&'static str),
    /// JSON, or lines of it for whoever asks for them.
    Lines(&'static str),
    Nothing,
}

impl Answers {
    fn media(self) -> Vec<&'static str> {
        match self {
            Self::Json(_) | Self::Tagged(_) => vec![JSON],
            Self::Media(media) => vec![media],
            Self::Lines(_) => vec![JSON, LINES],
            Self::Nothing => Vec::new(),
        }
    }
}

/// A parameter of the query or the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `query` or `header`.
    pub(super) place: &'static str,
    pub(super) of: Of,
    pub(super) says: &'static str,
    pub(super) is_needed: bool,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Name,
    Text,
    Switch,
    /// A number, at least and at most.
    Number(u64, u64),
    Words(&'static [&'static str]),
    Pattern(&'static str),
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The method's name, lower case.
    pub(super) verb: &'static str,
    pub(super) path: &'static str,
    pub(super) id: String,
    pub(super) tag: &'static str,
    pub(super) says: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) takes: Takes,
    pub(super) status: u16,
    pub(super) answers: Answers,
    /// Whether a new resource is answered with 201 as well.
    pub(super) creates: bool,
    /// What it answers, with 200, where `force` was asked for.
    pub(super) forced: Option<Answers>,
    /// Whether it is for whoever has an invitation or a certificate.
    pub(super) is_open: bool,
    handler: MethodRouter<Api>,
}

impl Endpoint {
    fn new<H, T>(verb: &'static str, path: &'static str, id: impl Into<String>, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let method = match verb {
            "post" => MethodFilter::POST,
            "put" => MethodFilter::PUT,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        Self {
            verb,
            path,
            id: id.into(),
            tag: "gateway",
            says: String::new(),
            parameters: Vec::new(),
            takes: Takes::Nothing,
            status: 200,
            answers: Answers::Nothing,
            creates: false,
            forced: None,
            is_open: false,
            handler: on(method, handler),
        }
    }

    fn of(mut self, tag: &'static str, says: impl Into<String>) -> Self {
        (self.tag, self.says) = (tag, says.into());
        self
    }

    fn asks(mut self, parameters: &[Parameter]) -> Self {
        self.parameters.extend_from_slice(parameters);
        self
    }

    const fn takes(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }

    const fn answers(mut self, status: u16, answers: Answers) -> Self {
        (self.status, self.answers) = (status, answers);
        self
    }

    const fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    const fn forced(mut self, answers: Answers) -> Self {
        self.forced = Some(answers);
        self
    }

    const fn creates(mut self) -> Self {
        self.creates = true;
        self
    }
}

const fn query(name: &'static str, of: Of, says: &'static str) -> Parameter {
    Parameter { name, place: "query", of, says, is_needed: false }
}

const fn needed(parameter: Parameter) -> Parameter {
    Parameter { is_needed: true, ..parameter }
}

const fn head(name: &'static str, of: Of, says: &'static str) -> Parameter {
    Parameter { name, place: "header", of, says, is_needed: false }
}

const LIMIT: Parameter =
    query("limit", Of::Number(1, 1000), "How many items at most; 100 if it is left out.");
const FILTER: Parameter = query(
    "filter",
    Of::Pattern(FILTERS),
    "Conditions with commas between them: `name~TEXT`, `attribute=NAME`, `service=NAME`, `identity=NAME`, `type=TYPE`, \
     `admin=true|false`, `metrics=true|false`, `disabled=true|false`.",
);
/// What a filter may be: letters, digits and what names have, so that any such text is one.
const FILTERS: &str = "^(name~[A-Za-z0-9_.+@-]*|(attribute|service|identity|type)=[A-Za-z0-9_][A-Za-z0-9_+@-]{0,60}|(admin|metrics|disabled)=(true|false))(,(name~[A-Za-z0-9_.+@-]*|(attribute|service|identity|type)=[A-Za-z0-9_][A-Za-z0-9_+@-]{0,60}|(admin|metrics|disabled)=(true|false)))*$";
const AFTER: Parameter = query("after", Of::Name, "The items after this name: `next` of the page before.");
const FORCE: Parameter = query(
    "force",
    Of::Switch,
    "Takes the resource out of policies that name it, in the same transaction, instead of refusing; the answer says what \
     that changed.",
);
const IF_MATCH: Parameter = head(
    "If-Match",
    Of::Pattern("^(\\*|\"[0-9]{1,18}\")$"),
    "The ETag that the resource must have; `*`: it must exist.",
);
const IF_NONE_MATCH: Parameter = head("If-None-Match", Of::Words(&["*"]), "`*`: it must not exist yet.");

/// The names of a kind in the description and in paths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub(super) kind: Kind,
    /// The component of its document: `Identity`.
    pub(super) document: &'static str,
    pub(super) item: &'static str,
    pub(super) page: &'static str,
    /// What creating one answers.
    pub(super) created: &'static str,
    all: &'static str,
    one: &'static str,
}

macro_rules! words {
    ($kind:ident, $document:literal, $plural:literal, $created:expr) => {
        Words {
            kind: Kind::$kind,
            document: $document,
            item: concat!($document, "Item"),
            page: concat!($document, "Page"),
            created: $created,
            all: concat!("/v1/", $plural),
            one: concat!("/v1/", $plural, "/{name}"),
        }
    };
}

/// Every kind.
pub(super) const KINDS: [Words; 6] = [
    words!(Identity, "Identity", "identities", "IdentityItem"),
    words!(Config, "ServiceConfig", "configs", "ServiceConfigItem"),
    words!(Service, "Service", "services", "ServiceItem"),
    words!(ServicePolicy, "ServicePolicy", "service-policies", "ServicePolicyItem"),
    words!(Route, "Route", "routes", "RouteItem"),
    words!(Token, "Token", "tokens", "CreatedToken"),
];

fn of_kind(words: Words, endpoints: &mut Vec<Endpoint>) {
    let Words { kind, document, item, page, created, all, one } = words;
    let (tag, word) = (kind.plural(), kind.singular());
    let id = |verb: &str| format!("{verb}{document}");
    endpoints.extend([
        Endpoint::new("get", all, format!("list{document}"), move |api, query| async move {
            resources::list(kind, api, query)
        })
        .of(tag, format!("Lists resources of the kind {word} by name."))
        .asks(&[LIMIT, AFTER, FILTER])
        .answers(200, Answers::Json(page)),
        Endpoint::new("post", all, id("create"), move |api, asker, headers, request| {
            resources::create(kind, api, asker, headers, request)
        })
        .of(tag, format!("Creates a {word}."))
        .takes(Takes::Document(document))
        .answers(201, Answers::Tagged(created)),
        Endpoint::new("get", one, id("show"), move |api, at, headers| async move {
            resources::show(kind, api, at, headers)
        })
        .of(tag, format!("Shows a {word}."))
        .answers(200, Answers::Tagged(item)),
        Endpoint::new("put", one, id("replace"), move |api, asker, at, headers, request| {
            resources::replace(kind, api, asker, at, headers, request)
        })
        .of(tag, format!("Creates or replaces a {word}. It keeps its name."))
        .asks(&[IF_MATCH, IF_NONE_MATCH])
        .takes(Takes::Document(document))
        .answers(200, Answers::Tagged(item))
        .creates(),
        Endpoint::new("delete", one, id("delete"), move |api, asker, at, query, headers| {
            resources::delete(kind, api, asker, at, query, headers)
        })
        .of(tag, format!("Deletes a {word}."))
        .asks(&[FORCE, IF_MATCH])
        .answers(204, Answers::Nothing)
        .forced(Answers::Json("Applied")),
    ]);
}

fn of_credentials() -> Vec<Endpoint> {
    vec![
        Endpoint::new("post", "/v1/identities/{name}/enrollments", "invite", enrolling::invite)
            .of("identities", "Invites an identity: whoever has the answer gets a certificate for it, once.")
            .takes(Takes::Optional("Invite"))
            .answers(200, Answers::Json("Invited")),
        Endpoint::new("post", ENROLL, "enroll", enrolling::enroll)
            .of("identities", "Gets a certificate for an invitation. Needs no other credential.")
            .takes(Takes::Document("EnrollRequest"))
            .answers(200, Answers::Json("Certified"))
            .open(),
        Endpoint::new("post", RENEW, "renew", enrolling::renew)
            .of("identities", "Gets a certificate that follows the one that the connection was made with.")
            .takes(Takes::Document("RenewRequest"))
            .answers(200, Answers::Json("Certified"))
            .open(),
        Endpoint::new(
            "delete",
            "/v1/identities/{name}/credentials",
            "revokeCredentials",
            credentials::revoke_credentials,
        )
        .of("identities", "Revokes every certificate of an identity, and its open invitations.")
        .answers(200, Answers::Json("Revoked")),
        Endpoint::new(
            "delete",
            "/v1/identities/{name}/credentials/{serial}",
            "revokeCredential",
            credentials::revoke_credential,
        )
        .of("identities", "Revokes one certificate of an identity, and those that were renewed from it.")
        .answers(200, Answers::Json("Revoked")),
        Endpoint::new("post", "/v1/tokens/{name}/rotate", "rotateToken", credentials::rotate)
            .of("tokens", "Gives a token a new secret; the old ones stay good for a while.")
            .takes(Takes::Optional("Rotate"))
            .answers(200, Answers::Json("Rotated")),
        Endpoint::new("delete", "/v1/tokens/{name}/secrets", "revokeSecrets", credentials::revoke_secrets)
            .of("tokens", "Revokes every secret of a token.")
            .answers(204, Answers::Nothing),
        Endpoint::new("delete", "/v1/tokens/{name}/secrets/{id}", "revokeSecret", credentials::revoke_secret)
            .of("tokens", "Revokes one secret of a token.")
            .answers(204, Answers::Nothing),
    ]
}

fn of_all() -> Vec<Endpoint> {
    let audit_asks = [
        LIMIT,
        query(
            "after",
            Of::Number(0, u64::MAX),
            "The records that follow this one: `next` of the page before.",
        ),
        query("order", Of::Words(&["asc", "desc"]), "`desc`: the newest first."),
        query("kind", Of::Words(&KIND_WORDS), "About resources of this kind."),
        query("name", Of::Name, "About this resource."),
        query("actor", Of::Text, "By this actor: `identity:NAME`, `token:NAME`, `local`."),
    ];
    vec![
        Endpoint::new("post", "/v1/apply", "apply", batch::apply)
            .of(
                "batch",
                "Makes resources as they are given and deletes others, in one transaction, or says what that would change.",
            )
            .takes(Takes::Document("Apply"))
            .answers(200, Answers::Json("Applied")),
        Endpoint::new("get", "/v1/export", "export", batch::export)
            .of("batch", "All resources, in an order in which they can be created.")
            .answers(200, Answers::Json("Exported")),
        Endpoint::new("get", "/v1/explain", "explain", explain::explain)
            .of("batch", "Why an identity may or may not dial or bind a service, and what would change that.")
            .asks(&[
                needed(query("verb", Of::Words(&["dial", "bind"]), "To reach it or to offer it.")),
                needed(query("identity", Of::Name, "Who: an identity, a token or `public`.")),
                query("service", Of::Name, "Which service; this or `to` is needed."),
                query(
                    "to",
                    Of::Text,
                    "Where a client would connect to, `host:port`: the service is found by it.",
                ),
            ])
            .answers(200, Answers::Json("Explanation")),
        Endpoint::new("get", "/v1/audit", "audit", audit::audit)
            .of("audit", "Who changed what; as `application/x-ndjson`, every record on a line of its own.")
            .asks(&audit_asks)
            .answers(200, Answers::Lines("AuditPage")),
        Endpoint::new("get", "/v1/watch", "watch", watch::watch)
            .of(
                "watch",
                "Changes as they happen: events `create`, `update` and `delete`; the id is the revision.",
            )
            .asks(&[
                query("since", Of::Number(0, u64::MAX), "Begins after this revision; now if it is left out."),
                head(
                    "Last-Event-ID",
                    Of::Pattern("^[0-9]{1,15}$"),
                    "The same, as a client sends it that comes back.",
                ),
            ])
            .answers(200, Answers::Media("text/event-stream")),
        Endpoint::new("get", "/v1/info", "info", about::info)
            .of("gateway", "The gateway: its release, where it keeps resources, their revision.")
            .answers(200, Answers::Json("InfoAnswer")),
        Endpoint::new("get", WHOAMI, "whoami", about::whoami)
            .of("gateway", "Who asks. Needs a credential, but no right.")
            .answers(200, Answers::Json("WhoAnswer")),
        Endpoint::new("post", "/v1/backup", "backup", about::backup)
            .of(
                "gateway",
                "A copy of the database as of now, with its secrets. The gateway goes on meanwhile.",
            )
            .answers(200, Answers::Media("application/vnd.sqlite3")),
        Endpoint::new("post", RELOAD, "reload", about::reload)
            .of("gateway", "Reads the gateway's configuration file again.")
            .answers(200, Answers::Json("Reloaded")),
        Endpoint::new("get", "/v1/openapi.json", "openapi", about::openapi)
            .of("gateway", "This description.")
            .answers(200, Answers::Json("Anything")),
    ]
}

pub(super) const KIND_WORDS: [&str; 6] =
    ["identity", "token", "config", "service", "service-policy", "route"];

/// All of them.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for words in KINDS {
        of_kind(words, &mut endpoints);
    }
    endpoints.extend(of_credentials());
    endpoints.extend(of_all());
    endpoints
}

/// What answers.
pub(super) fn router(api: Api) -> Router {
    let mut router: Router<Api> = Router::new();
    for Endpoint { path, handler, .. } in endpoints() {
        router = router.route(path, handler);
    }
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(api)
}

async fn no_such_path(request: Request) -> Response<Body> {
    let message = format!("there is nothing at {}", request.uri().path());
    axum::response::IntoResponse::into_response(Problem::client(
        "not_found",
        404,
        message,
        "GET /v1/openapi.json says what there is",
    ))
}

async fn no_such_method(request: Request) -> Response<Body> {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    let next = "the header Allow says what it takes";
    axum::response::IntoResponse::into_response(Problem::client("method_not_allowed", 405, message, next))
}

/// What is known of an endpoint before anything of it is called.
struct Known {
    verb: &'static str,
    path: &'static str,
    media: Vec<&'static str>,
}

fn known() -> &'static [Known] {
    use std::sync::OnceLock;
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let known = |it: &Endpoint| Known { verb: it.verb, path: it.path, media: it.answers.media() };
        endpoints().iter().map(known).collect()
    })
}

fn fits(template: &str, path: &str) -> bool {
    let (mut parts, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(given)) if part == given => {}
            (Some(part), Some(given)) if part.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

/// The path of the endpoint that a path belongs to, with names for its variable parts: what metrics call it.
pub(super) fn template(path: &str) -> &'static str {
    known().iter().find(|it| fits(it.path, path)).map_or(OTHER, |it| it.path)
}

/// The types that an endpoint may answer with; none if there is no such endpoint, or nothing to answer.
pub(super) fn media(method: &Method, path: &str) -> &'static [&'static str] {
    let is_it = |it: &&Known| it.verb.eq_ignore_ascii_case(method.as_str()) && fits(it.path, path);
    known().iter().find(is_it).map_or(&[], |it| &it.media)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_know_a_path_by_its_template_and_unknown_ones_by_one_word() {
        assert_eq!(template("/v1/services"), "/v1/services");
        assert_eq!(template("/v1/services/web"), "/v1/services/{name}");
        assert_eq!(template("/v1/identities/a/credentials/01"), "/v1/identities/{name}/credentials/{serial}");
        for path in ["/v1", "/v1/", "/v1/services/", "/v1/nothing", "/v1/services/a/b"] {
            assert_eq!(template(path), OTHER, "{path}");
        }
    }
}
