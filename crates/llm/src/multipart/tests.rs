use super::*;
use crate::{ChainSeed, splice_model};

const TYPE: &str = "multipart/form-data; boundary=\"x y\"";

fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (disposition, value) in parts {
        body +=
            &format!("--x y\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n");
    }
    (body + "--x y--\r\n").into_bytes()
}

fn transcription(body: &[u8]) -> Result<RequestView<'_>> {
    read(Dialect::AudioTranscriptions, Some(TYPE), body)
}

#[test]
fn the_model_may_stand_behind_the_file() {
    let sound = "\r\n--x z\0".repeat(4000);
    let body = form(&[
        (r#"name="file"; filename="model""#, &sound),
        (r#"name="model""#, "whisper"),
        ("name=stream", "true"),
        (r#"name="stream_include_usage""#, "true"),
    ]);
    let view = transcription(&body).expect("a form");
    let model = view.model.expect("named");
    assert_eq!(model.name, "whisper");
    assert_eq!(&body[model.span.clone()], b"whisper");
    assert!(view.stream && view.include_usage);
    let chain = view.prompt.chain(&ChainSeed {
        model: "m",
        cache_salt: None,
    });
    assert_eq!(chain.media, 1);
    let parts = splice_model(
        &bytes::Bytes::from(body.clone()),
        model.span,
        false,
        "small\r\n",
    );
    let spliced = parts.concat();
    assert_eq!(
        spliced.len(),
        body.len() - 2,
        "line ends would break the form"
    );
    assert_eq!(
        transcription(&spliced)
            .expect("a form")
            .model
            .expect("named")
            .name,
        "small"
    );
}

#[test]
fn forms_in_other_clothes() {
    let other = b"preamble\r\n--b  \r\ncontent-type: text/plain\r\nCONTENT-DISPOSITION: form-data;name=\"mo\\del\"\r\n\r\nw\r\n--b--epilogue";
    let view = read(
        Dialect::AudioTranslations,
        Some("Multipart/Form-Data; charset=x; Boundary=b"),
        other,
    )
    .expect("a form");
    assert_eq!(view.model.expect("named").name, "w");
    assert!(transcription(b"--x y--").expect("empty").model.is_none());
    assert!(
        transcription(&form(&[("name=\"\"", ""), ("filename=x", "")]))
            .expect("odd")
            .model
            .is_none()
    );
}

#[test]
fn bad_forms() {
    let twice = form(&[("name=model", "a"), ("name=model", "b")]);
    let second = twice.len() - "b\r\n--x y--\r\n".len();
    let cases: &[(Option<&str>, &[u8], &str, usize)] = &[
        (None, b"--x y--", "invalid_multipart", 0),
        (Some("application/json"), b"{}", "invalid_multipart", 0),
        (
            Some("multipart/form-data"),
            b"--x y--",
            "invalid_multipart",
            0,
        ),
        (
            Some("multipart/form-data; boundary="),
            b"--x y--",
            "invalid_multipart",
            0,
        ),
        (Some(TYPE), b"", "invalid_multipart", 0),
        (Some(TYPE), b"nothing", "invalid_multipart", 0),
        (Some(TYPE), b"--x yz\r\n", "invalid_multipart", 5),
        (Some(TYPE), b"--x y\r\nhead", "invalid_multipart", 7),
        (
            Some(TYPE),
            b"--x y\r\na: b\r\n\r\nvalue",
            "invalid_multipart",
            15,
        ),
        (Some(TYPE), &twice, "duplicate_model", second),
    ];
    for (content_type, body, code, at) in cases {
        let error = read(Dialect::AudioTranscriptions, *content_type, body)
            .expect_err(&String::from_utf8_lossy(body));
        assert_eq!(
            (error.code(), error.at()),
            (*code, *at),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    let mut body = form(&[("name=model", "?")]);
    let at = body.iter().position(|&b| b == b'?').expect("there");
    body[at] = 0xff;
    assert_eq!(
        transcription(&body).err(),
        Some(RequestError::ModelNotAString { at })
    );
}

#[test]
fn a_reserved_field_of_a_form() {
    let body = form(&[("name=kv_transfer_params", "{}"), ("name=model", "w")]);
    assert_eq!(
        transcription(&body).expect("a form").reserved_field,
        Some("kv_transfer_params")
    );
}
