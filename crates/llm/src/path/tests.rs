use super::*;

fn post(path: &str) -> Route<'_> {
    route(&Method::POST, path)
}

fn get(path: &str) -> Route<'_> {
    route(&Method::GET, path)
}

#[test]
fn inference_paths() {
    use Dialect as D;
    let cases = [
        ("/v1/chat/completions", D::ChatCompletions),
        ("/chat/completions", D::ChatCompletions),
        ("/v1/completions", D::Completions),
        ("/completion", D::Completions),
        ("/v1/embeddings", D::Embeddings),
        ("/embeddings", D::Embeddings),
        ("/v1/responses", D::Responses),
        ("/v1/messages", D::Messages),
        ("/v1/messages/count_tokens", D::CountTokens),
        ("/rerank", D::Rerank),
        ("/v1/rerank", D::Rerank),
        ("/v2/rerank", D::Rerank),
        ("/score", D::Score),
        ("/v1/score", D::Score),
        ("/classify", D::Classify),
        ("/pooling", D::Pooling),
        ("/tokenize", D::Tokenize),
        ("/detokenize", D::Detokenize),
        ("/v1/audio/transcriptions", D::AudioTranscriptions),
        ("/v1/audio/translations", D::AudioTranslations),
        ("/generate", D::Generate),
    ];
    for (path, dialect) in cases {
        assert_eq!(post(path), Route::Inference(dialect), "{path}");
        assert_eq!(get(path), Route::Other, "GET {path}");
    }
}

#[test]
fn a_spelling_does_not_get_past_the_checks() {
    for path in [
        "/v1/ch%61t/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%2fcompletions",
        "/v1//chat/completions",
        "/v1/./chat/completions",
        "/v1/models/../chat/completions",
        "/v1/chat/completions/",
        "/V1/Chat/Completions",
        "/v1/chat/completions?x=1",
    ] {
        assert_eq!(
            post(path),
            Route::Inference(Dialect::ChatCompletions),
            "{path}"
        );
    }
}

#[test]
fn model_lists_and_models() {
    assert_eq!(get("/v1/models"), Route::Models);
    assert_eq!(get("/v1/models/llama-3"), Route::Model("llama-3"));
    assert_eq!(
        get("/v1/models/Qwen%2FQwen3-8B"),
        Route::Model("Qwen%2FQwen3-8B")
    );
    assert_eq!(get("/v1/models/Qwen/Qwen3"), Route::Model("Qwen/Qwen3"));
    assert_eq!(get("/v1/models/"), Route::Models);
    assert_eq!(post("/v1/models"), Route::Other);
    assert_eq!(route(&Method::DELETE, "/v1/models/llama-3"), Route::Other);
}

#[test]
fn things_that_live_in_one_server() {
    let cases = [
        ("/v1/responses/resp_1", StateKind::Response, "resp_1"),
        ("/v1/responses/resp_A1", StateKind::Response, "resp_A1"),
        ("/v1/responses/resp_1/cancel", StateKind::Response, "resp_1"),
        (
            "/v1/responses/resp_1/input_items",
            StateKind::Response,
            "resp_1",
        ),
        ("/v1/conversations/c/items", StateKind::Conversation, "c"),
        ("/v1/videos/v-1/content", StateKind::Video, "v-1"),
        ("/v1/files/file-1", StateKind::File, "file-1"),
        ("/v1/batches/b/cancel", StateKind::Batch, "b"),
    ];
    for (path, kind, id) in cases {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert_eq!(route(&method, path), Route::Stateful { kind, id }, "{path}");
        }
    }
    assert_eq!(post("/v1/chat/completions/render"), Route::Other);
    assert_eq!(
        post("/v1/responses/input_tokens"),
        Route::Inference(Dialect::Responses)
    );
}

#[test]
fn no_spelling_reaches_an_administrative_route() {
    for path in [
        "/sleep",
        "/sleep/",
        "//sleep",
        "/Sleep",
        "/SLEEP",
        "/%73leep",
        "/%73%6C%65%65%70",
        "/%2573leep",
        "/slee%70%2f",
        "/./sleep",
        "/v1/../sleep",
        "/v1/%2e%2e/sleep",
        "/v1/models/..%2f..%2fsleep",
        "/v1/responses/..%2F..%2Fsleep",
        "/sleep;x=1",
        "/sleep?level=1",
        "/sleep%3flevel=1",
        "\\sleep",
        "/x\\..\\sleep",
        "/sleep/../x",
        "/wake_up",
        "/is_sleeping",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/V1/load_lora_adapter",
        "/adapters",
        "/adapters/l0",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/pause",
        "/resume",
        "/start_profile",
        "/stop_profile",
        "/flush_cache",
        "/update_weights_from_disk",
        "/update_weights",
        "/collective_rpc",
        "/server_info",
        "/inference/v1/generate",
        "/scale_elastic_ep",
        "/abort_request",
        "/abort_requests",
        "/release_memory_occupation",
        "/slots/0",
        "/slots",
    ] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            assert_eq!(route(&method, path), Route::Admin, "{method} {path}");
        }
    }
}

#[test]
fn reading_some_settings_is_no_administration() {
    for path in ["/props", "/lora-adapters"] {
        assert_eq!(post(path), Route::Admin);
        assert_eq!(get(path), Route::Other);
    }
}

#[test]
fn anything_else_is_forwarded() {
    for path in [
        "/",
        "",
        "/health",
        "/metrics",
        "/v1/images/generations",
        "/sleepy",
        "/v1/sleeping",
        "/pauses",
        "*",
    ] {
        assert_eq!(get(path), Route::Other, "{path}");
        assert_eq!(post(path), Route::Other, "{path}");
    }
}
