use super::*;

const VLLM: &str = r#"{"object":"list","data":[
    {"id":"tiny","object":"model","created":1,"owned_by":"vllm","root":"/m/tiny","parent":null,"max_model_len":4096,"permission":[{}]},
    {"id":"l1","object":"model","root":"/m/l1","parent":"tiny","max_model_len":null}]}"#;
const LLAMACPP: &str = r#"{"models":[{"name":"tiny","model":"tiny"}],"object":"list",
    "data":[{"id":"tiny","object":"model","owned_by":"llamacpp","meta":{"vocab_type":2,"n_ctx":2048,"n_params":336192}},{"no":"id"},
    {"id":"other","root":7}]}"#;

fn info(
    id: &str,
    parent: Option<&str>,
    root: Option<&str>,
    max_model_len: Option<u32>,
) -> ModelInfo {
    ModelInfo {
        id: id.into(),
        parent: parent.map(Into::into),
        root: root.map(Into::into),
        max_model_len,
    }
}

#[test]
fn lists_are_read() {
    let vllm = [
        info("tiny", None, Some("/m/tiny"), Some(4096)),
        info("l1", Some("tiny"), Some("/m/l1"), None),
    ];
    assert_eq!(parse_models(VLLM.as_bytes()).as_deref(), Some(&vllm[..]));
    let llamacpp = [
        info("tiny", None, None, Some(2048)),
        info("other", None, None, None),
    ];
    assert_eq!(
        parse_models(LLAMACPP.as_bytes()).as_deref(),
        Some(&llamacpp[..])
    );
    assert_eq!(
        parse_models(br#"{"object":"list","data":[]}"#),
        Some(vec![])
    );
}

#[test]
fn other_answers_are_no_lists() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"data":5}"#,
        r#"{"error":{"message":"no"}}"#,
        "<html>",
    ] {
        assert_eq!(parse_models(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn merging_keeps_the_first_bytes_of_an_id() {
    let merged = merge_models(&[
        VLLM.as_bytes(),
        b"broken",
        LLAMACPP.as_bytes(),
        VLLM.as_bytes(),
    ]);
    let ids: Vec<_> = parse_models(&merged)
        .expect("a list")
        .into_iter()
        .map(|model| model.id)
        .collect();
    assert_eq!(ids, ["tiny", "l1", "other"]);
    let text = std::str::from_utf8(&merged).expect("text");
    assert!(text.contains(
        r#"{"id":"tiny","object":"model","created":1,"owned_by":"vllm","root":"/m/tiny""#
    ));
    assert_eq!(merge_models(&[]), r#"{"object":"list","data":[]}"#);
}
