//! What the library's XML documents lack: the request's id in an error, and an ETag without quotes where S3 gives one.

use super::door::escaped;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;

/// In the extensions of a reply whose document is to hold its ETag bare, as only GetObjectAttributes does.
#[derive(Clone, Copy, Debug)]
pub(super) struct BareEtag;

/// The reply with its document as S3 writes it.
pub(super) fn completed(response: Response<s3s::Body>, path: &str, id: &str) -> Response<s3s::Body> {
    let refused = response.status().is_client_error() || response.status().is_server_error();
    let bare = response.extensions().get::<BareEtag>().is_some();
    match response.body().bytes() {
        Some(document) if refused => replaced(response, identified(&document, path, id)),
        Some(document) if bare => replaced(response, with_bare_etag(&document)),
        _ => response,
    }
}

fn replaced(mut response: Response<s3s::Body>, document: Option<String>) -> Response<s3s::Body> {
    let Some(document) = document else { return response };
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|_| s3s::Body::from(Bytes::from(document)))
}

/// An error and what of its request: the resource, and the id that the head names too.
fn identified(document: &[u8], path: &str, id: &str) -> Option<String> {
    let text = std::str::from_utf8(document).ok()?.strip_suffix("</Error>")?;
    let missing = !text.contains("<RequestId>");
    missing.then(|| format!("{text}<Resource>{}</Resource><RequestId>{id}</RequestId></Error>", escaped(path)))
}

fn with_bare_etag(document: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(document).ok()?;
    Some(text.replacen("<ETag>\"", "<ETag>", 1).replacen("\"</ETag>", "</ETag>", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_their_request() {
        let told = |text: &str| identified(text.as_bytes(), "/b/<k>", "ID");
        assert_eq!(
            told("<Error><Code>X</Code></Error>").as_deref(),
            Some("<Error><Code>X</Code><Resource>/b/&lt;k&gt;</Resource><RequestId>ID</RequestId></Error>")
        );
        for other in ["", "<Error><RequestId>1</RequestId></Error>", "<Result></Result>"] {
            assert_eq!(told(other), None, "{other}");
        }
    }

    #[test]
    fn an_etag_can_be_bare() {
        let text = with_bare_etag(b"<A><ETag>\"a-2\"</ETag></A>");
        assert_eq!(text.as_deref(), Some("<A><ETag>a-2</ETag></A>"));
        assert_eq!(with_bare_etag(b"<A></A>").as_deref(), Some("<A></A>"));
    }
}
