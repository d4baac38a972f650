//! What a path means to a model server.

use http::Method;

/// One request format of the model servers; it decides which fields of a body mean what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI `POST /v1/completions`, llama.cpp `/completion`.
    Completions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// Anthropic `POST /v1/messages`.
    Messages,
    /// Anthropic `POST /v1/messages/count_tokens`.
    CountTokens,
    /// Cohere and Jina style `POST /rerank`.
    Rerank,
    /// vLLM `POST /score`.
    Score,
    /// vLLM `POST /classify`.
    Classify,
    /// vLLM `POST /pooling`.
    Pooling,
    /// vLLM and llama.cpp `POST /tokenize`.
    Tokenize,
    /// vLLM and llama.cpp `POST /detokenize`.
    Detokenize,
    /// OpenAI `POST /v1/audio/transcriptions` (multipart).
    AudioTranscriptions,
    /// OpenAI `POST /v1/audio/translations` (multipart).
    AudioTranslations,
    /// Routes that take a prompt in any of several shapes: SGLang `POST /generate`, SageMaker `POST /invocations`.
    Generate,
}

impl Dialect {
    /// Its name in logs and on metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
            Self::AudioTranscriptions => "audio_transcriptions",
            Self::AudioTranslations => "audio_translations",
            Self::Generate => "generate",
        }
    }

    /// Whether the server runs its model for it. Turning text into tokens and back uses none, and leaves nothing in
    /// its cache.
    #[must_use]
    pub const fn runs_model(self) -> bool {
        !matches!(self, Self::CountTokens | Self::Tokenize | Self::Detokenize)
    }
}

/// What kind of server-side thing an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// `/v1/responses/{id}`.
    Response,
    /// `/v1/conversations/{id}`.
    Conversation,
    /// `/v1/videos/{id}`.
    Video,
    /// `/v1/files/{id}`.
    File,
    /// `/v1/batches/{id}`.
    Batch,
    /// `/v1/uploads/{id}`.
    Upload,
    /// `/v1/chat/completions/{id}`: a stored completion.
    ChatCompletion,
}

/// The meaning of a method and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'p> {
    /// A POST whose body names a model.
    Inference(Dialect),
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{id}`; the id is percent-encoded as received.
    Model(&'p str),
    /// Something that lives in the one server that made it.
    Stateful {
        /// What the id names.
        kind: StateKind,
        /// The id, percent-encoded as received.
        id: &'p str,
    },
    /// A server's administrative route.
    Admin,
    /// Anything else: forwarded as it is.
    Other,
}

/// Classifies a request by method and path.
///
/// The path is read as the most obliging server would read it: percent-escapes are decoded (also twice), letters
/// lowered, empty and dot segments resolved, `;parameters`, backslashes and trailing slashes ignored. Python servers
/// do decode, so `/%73leep` is `/sleep` to them. A path that *only after this* is an administrative or an inference
/// route is still treated as one: the first must not be reached by a spelling, nor may a spelling get a body past the
/// checks. The path that is forwarded stays as it was received.
#[must_use]
pub fn route<'p>(method: &Method, path: &'p str) -> Route<'p> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if let known @ (Route::Inference(_) | Route::Models) = exact(method, path) {
        return known;
    }
    if is_plain(path) {
        return if is_admin(method, path) {
            Route::Admin
        } else {
            with_id(method, path)
        };
    }
    let folded = fold(path, true);
    if is_admin(method, &folded) || is_admin(method, &fold(path, false)) {
        return Route::Admin;
    }
    match exact(method, &folded) {
        Route::Inference(dialect) => Route::Inference(dialect),
        Route::Models => Route::Models,
        _ => with_id(method, path),
    }
}

/// Routes that are one fixed path.
fn exact(method: &Method, path: &str) -> Route<'static> {
    if method == Method::POST
        && let Some(dialect) = dialect(path)
    {
        return Route::Inference(dialect);
    }
    match path {
        "/v1/models" | "/models" if method == Method::GET || method == Method::HEAD => {
            Route::Models
        }
        _ => Route::Other,
    }
}

/// The dialect of an inference path.
fn dialect(path: &str) -> Option<Dialect> {
    Some(match path {
        "/v1/chat/completions" | "/chat/completions" | "/v1/chat/completions/batch" => {
            Dialect::ChatCompletions
        }
        "/v1/completions" | "/completions" | "/completion" => Dialect::Completions,
        "/v1/embeddings" | "/embeddings" | "/embedding" | "/v2/embed" => Dialect::Embeddings,
        "/v1/responses" | "/responses" | "/v1/responses/input_tokens" | "/v1/responses/compact" => {
            Dialect::Responses
        }
        "/v1/messages" | "/messages" => Dialect::Messages,
        "/v1/messages/count_tokens" | "/messages/count_tokens" => Dialect::CountTokens,
        "/rerank" | "/v1/rerank" | "/v2/rerank" | "/reranking" | "/v1/reranking" => Dialect::Rerank,
        "/score" | "/v1/score" => Dialect::Score,
        "/classify" | "/v1/classify" => Dialect::Classify,
        "/pooling" | "/v1/pooling" => Dialect::Pooling,
        "/tokenize" | "/v1/tokenize" => Dialect::Tokenize,
        "/detokenize" | "/v1/detokenize" => Dialect::Detokenize,
        "/v1/audio/transcriptions" | "/audio/transcriptions" => Dialect::AudioTranscriptions,
        "/v1/audio/translations" | "/audio/translations" => Dialect::AudioTranslations,
        "/generate" | "/invocations" => Dialect::Generate,
        _ => return None,
    })
}

/// Routes that end in an id.
fn with_id<'p>(method: &Method, path: &'p str) -> Route<'p> {
    const STATEFUL: [(&str, StateKind); 7] = [
        ("/v1/responses/", StateKind::Response),
        ("/v1/conversations/", StateKind::Conversation),
        ("/v1/videos/", StateKind::Video),
        ("/v1/files/", StateKind::File),
        ("/v1/batches/", StateKind::Batch),
        ("/v1/uploads/", StateKind::Upload),
        ("/v1/chat/completions/", StateKind::ChatCompletion),
    ];
    if let Some(id) = path.strip_prefix("/v1/models/") {
        let reads = method == Method::GET || method == Method::HEAD;
        return if reads && !id.is_empty() {
            Route::Model(id)
        } else {
            Route::Other
        };
    }
    for (prefix, kind) in STATEFUL {
        if let Some(rest) = path.strip_prefix(prefix) {
            let id = rest.split('/').next().unwrap_or_default();
            // Token counting and templating without an answer: no id, nothing kept.
            let is_verb = matches!(id, "render" | "derender");
            return if id.is_empty() || is_verb {
                Route::Other
            } else {
                Route::Stateful { kind, id }
            };
        }
    }
    Route::Other
}

/// Administrative routes of vLLM, SGLang, llama.cpp and TensorRT-LLM: each changes a server for everybody, or shows
/// what others asked it.
fn is_admin(method: &Method, path: &str) -> bool {
    /// The route itself and all below it.
    const TREES: [&str; 44] = [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/load_lora_adapter",
        "/load_lora_adapter_from_tensors",
        "/unload_lora_adapter",
        "/adapters",
        "/sleep",
        "/wake_up",
        "/is_sleeping",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/pause",
        "/resume",
        "/is_paused",
        "/pause_generation",
        "/continue_generation",
        "/start_profile",
        "/stop_profile",
        "/flush_cache",
        "/collective_rpc",
        "/server_info",
        "/get_server_info",
        "/inference/v1/generate",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/abort_request",
        "/abort_requests",
        "/release_memory_occupation",
        "/resume_memory_occupation",
        "/slots",
        "/fault_tolerance",
        "/kv_event_sources",
        "/configure_logging",
        "/set_internal_state",
        "/get_internal_state",
        "/open_session",
        "/close_session",
        "/freeze_gc",
        "/slow_down",
        "/init_weight_transfer_engine",
        "/save_remote_model",
        "/save_sharded_model",
        "/dump_tensor",
    ];
    /// Families of names.
    const PREFIXES: [&str; 10] = [
        "/update_weight",
        "/start_weight_update",
        "/finish_weight_update",
        "/init_weights",
        "/destroy_weights",
        "/get_weights",
        "/send_weights",
        "/start_expert_distribution",
        "/stop_expert_distribution",
        "/dump_expert_distribution",
    ];
    if matches!(
        path,
        "/lora-adapters" | "/props" | "/models/load" | "/models/unload"
    ) {
        return method != Method::GET && method != Method::HEAD;
    }
    let below = |tree: &str| {
        path.strip_prefix(tree)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    TREES.iter().any(|tree| below(tree)) || PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// A path that every server reads as it is written.
fn is_plain(path: &str) -> bool {
    let plain = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'/' | b'_' | b'-' | b'.')
    };
    path.starts_with('/')
        && path.bytes().all(plain)
        && !path.contains("//")
        && !path.contains("/.")
        && (path == "/" || !path.ends_with('/'))
}

/// The path with all spellings of one route made equal; `..` steps up or is one more name.
fn fold(path: &str, step_up: bool) -> String {
    let decoded = percent_decode(&percent_decode(path.as_bytes()));
    let text = String::from_utf8_lossy(&decoded)
        .to_lowercase()
        .replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split(['?', '#']).next().unwrap_or_default().split('/') {
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." if step_up => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let mut folded = String::with_capacity(text.len());
    for segment in segments {
        folded.push('/');
        folded.push_str(segment);
    }
    folded
}

fn percent_decode(path: &[u8]) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match (byte, digit(path.get(at + 1)), digit(path.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
