//! Answers: their kinds, and the headers that go with them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, SERVER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::http::AGENT;
use crate::wire::PATRONI_LEVEL;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    status: u16,
    /// Content type and text; none for an answer that is a status only.
    body: Option<(&'static str, String)>,
    challenge: bool,
}

impl Reply {
    /// JSON, with Patroni's separators.
    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", spaced(value))
    }

    /// Plain text; Patroni calls it HTML.
    pub(super) fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/html", text.into())
    }

    /// Prometheus text.
    pub(super) fn metrics(text: String) -> Self {
        Self::new(200, "text/plain", text)
    }

    /// A status only.
    pub(super) fn bare(ok: bool) -> Self {
        Self { status: if ok { 200 } else { 503 }, body: None, challenge: false }
    }

    /// Who are you?
    pub(super) fn unauthorized(text: &str) -> Self {
        Self { challenge: true, ..Self::text(401, text) }
    }

    /// The error page of Python's `http.server`, which tools match on.
    pub(super) fn error_page(status: u16, message: &str) -> Self {
        let explanation = match status {
            400 => "Bad request syntax or unsupported method",
            409 => "Request conflict",
            411 => "Client must specify Content-Length",
            501 => "Server does not support this operation",
            502 => "Invalid responses from another server/proxy",
            503 => "The server cannot process the request due to a high load",
            _ => message,
        };
        let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let page = format!(
            "<!DOCTYPE HTML>\n<html lang=\"en\">\n    <head>\n        <meta charset=\"utf-8\">\n        \
             <title>Error response</title>\n    </head>\n    <body>\n        <h1>Error response</h1>\n        \
             <p>Error code: {status}</p>\n        <p>Message: {message}.</p>\n        \
             <p>Error code explanation: {status} - {explanation}.</p>\n    </body>\n</html>\n"
        );
        Self::new(status, "text/html;charset=utf-8", page)
    }

    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The same without a body, as `HEAD` and `OPTIONS` are answered.
    pub(super) fn without_body(self) -> Self {
        Self { body: None, ..self }
    }

    fn new(status: u16, kind: &'static str, text: String) -> Self {
        Self { status, body: Some((kind, text)), challenge: false }
    }

    pub(super) fn into_response(self, server_tokens: &str, extra: &[(String, String)]) -> Response<Full<Bytes>> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let Some((kind, text)) = self.body else {
            let mut response = Response::new(Full::default());
            *response.status_mut() = status;
            return response;
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(SERVER, server(server_tokens));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Patroni\""));
        }
        for (name, value) in extra {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn server(tokens: &str) -> HeaderValue {
    match tokens.to_ascii_lowercase().as_str() {
        "productonly" => HeaderValue::from_static("Patroni"),
        "minimal" => {
            HeaderValue::try_from(format!("Patroni/{PATRONI_LEVEL}")).unwrap_or(HeaderValue::from_static(AGENT))
        }
        _ => HeaderValue::from_static(AGENT),
    }
}

/// JSON as Python's `json.dumps` writes it: `, ` and `: ` between, and ASCII only.
pub(crate) fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entry =
                |(key, value): (&String, &Value)| format!("{}: {}", ascii(&Value::from(key.as_str())), spaced(value));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        scalar => ascii(scalar),
    }
}

fn ascii(scalar: &Value) -> String {
    let text = scalar.to_string();
    if text.is_ascii() {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => escaped.push(char::from(byte)),
            _ => escaped.extend(format!("\\u{unit:04x}").chars()),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_spaced_and_escaped_as_python_does() {
        let value = json!({"a": [1, "x: y", null], "ü": {"b": true}, "e": []});
        assert_eq!(spaced(&value), r#"{"a": [1, "x: y", null], "\u00fc": {"b": true}, "e": []}"#);
    }

    #[test]
    fn the_error_page_holds_what_patronictl_looks_for() {
        let Some((kind, page)) = Reply::error_page(501, "Unsupported method ('PUT')").body else { panic!("no page") };
        assert_eq!(kind, "text/html;charset=utf-8");
        assert!(page.contains("        <p>Message: Unsupported method ('PUT').</p>\n"));
        assert!(page.contains("501 - Server does not support this operation."));
    }
}
