//! Every way to say no, in one place: status, headers, and a page for whoever asked.

use std::borrow::Cow;

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::{HeaderMap, Response, StatusCode};
use adit_control::Denial;
use adit_proto::reason::{Fault, Reason};
use bytes::Bytes;

use crate::forward::body::ResponseBody;
use crate::http::guard;
use crate::observe::Record;

/// The header that says why.
pub(crate) const REASON: HeaderName = HeaderName::from_static("adit-reason");

/// A no to a client.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// What exactly, for the person who sees the page. Holds nothing a client must not learn.
    pub(crate) detail: Cow<'static, str>,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::new(denial.reason, denial.reason.explanation())
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason, reason.explanation())
    }
}

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Html,
    Json,
}

impl Form {
    /// The first of `text/html` and `application/json` that the client accepts by name; plain text for everybody
    /// else, such as `curl`.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        accept
            .split(',')
            .find_map(|range| match range.split(';').next().unwrap_or("").trim() {
                "text/html" | "application/xhtml+xml" => Some(Self::Html),
                "application/json" => Some(Self::Json),
                _ => None,
            })
            .unwrap_or(Self::Text)
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    const fn next_step(&self) -> &'static str {
        match self.reason.fault() {
            Fault::Client => "Check the address and the request.",
            Fault::Policy => "Ask whoever runs this gateway for access.",
            Fault::Agent => {
                "The gateway works; the agent in front of the service must come back. Try again soon."
            }
            Fault::Upstream => "The gateway and the agent work; the service behind them must be looked at.",
            Fault::Gateway | Fault::Nobody => "Try again soon.",
        }
    }

    fn page(&self, form: Form) -> String {
        let status = self.status();
        let (reason, detail, fault) = (self.reason.label(), &self.detail, self.reason.fault().label());
        let next = self.next_step();
        match form {
            Form::Text => format!("{status}\n{detail}\nReason: {reason} ({fault}). {next}\n"),
            Form::Json => {
                let body = serde_json::json!({
                    "status": status.as_u16(), "reason": reason, "fault": fault, "detail": detail, "next": next,
                });
                format!("{body}\n")
            }
            Form::Html => format!(
                "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status}</title>\
                 <meta name=\"viewport\" content=\"width=device-width\"><style>body{{font:16px/1.5 system-ui,\
                 sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;color:#222}}code{{background:#eee;\
                 padding:.1em .3em}}</style></head><body><h1>{status}</h1><p>{}</p><p>{next}</p>\
                 <p>Reason: <code>{reason}</code> ({fault})</p></body></html>\n",
                escape(detail)
            ),
        }
    }

    fn headers(&self, form: Form) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REASON, HeaderValue::from_static(self.reason.label()));
        if self.reason.status() == 503 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        headers
    }

    /// The answer; `record` is written when it has been sent.
    pub(crate) fn into_response(self, form: Form, mut record: Record) -> Response<ResponseBody> {
        record.refused(self.reason);
        let mut headers = self.headers(form);
        if matches!(
            self.reason,
            Reason::BadRequest | Reason::HeadersTooLarge | Reason::RequestTimeout | Reason::TargetTooLong
        ) && record.is_http1()
        {
            // Whatever follows on this connection cannot be told from the rest of what was refused.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(ResponseBody::page(Bytes::from(self.page(form)), record));
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }
}

/// A whole HTTP/1.1 answer for a head the HTTP library never sees.
pub(crate) fn raw_answer(refused: guard::Refusal) -> Bytes {
    let refusal = Refusal::new(refused.reason, refused.detail);
    let page = refusal.page(Form::Text);
    let status = refusal.status();
    let mut out =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Refused"));
    for (name, value) in &refusal.headers(Form::Text) {
        out.push_str(name.as_str());
        out.push_str(": ");
        out.push_str(value.to_str().unwrap_or(""));
        out.push_str("\r\n");
    }
    out.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n{page}", page.len()));
    Bytes::from(out)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_comes_in_the_form_the_client_prefers_by_name() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept", accept.parse().unwrap());
            Form::wanted(&headers)
        };
        assert_eq!(form("*/*"), Form::Text);
        assert_eq!(form("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Html);
        assert_eq!(form("application/json, text/html"), Form::Json);
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Text);
    }

    #[test]
    fn every_reason_that_has_a_status_renders_in_every_form() {
        let mut seen = 0;
        for &reason in Reason::ALL {
            if reason.status() == 0 {
                continue;
            }
            seen += 1;
            let refusal = Refusal::new(reason, "a <b> & \"c\"");
            assert_eq!(refusal.status().as_u16(), reason.status());
            assert!(refusal.page(Form::Html).contains("a &lt;b&gt; &amp; &quot;c&quot;"));
            let json: serde_json::Value = serde_json::from_str(&refusal.page(Form::Json)).unwrap();
            assert_eq!(json["reason"], reason.label());
            assert!(refusal.page(Form::Text).contains(reason.label()));
        }
        assert!(seen > 20);
    }

    #[test]
    fn a_raw_answer_is_a_whole_response_that_closes() {
        let refused = guard::Refusal { reason: Reason::HeadersTooLarge, detail: "Too many." };
        let text = String::from_utf8(raw_answer(refused).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert!(head.contains("connection: close") && head.contains("adit-reason: headers_too_large"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}
