//! What a path means to a model server.

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
#[must_use]
pub fn route<'p>(method: &http::Method, path: &'p str) -> Route<'p> {
    let _ = (method, path);
    Route::Other
}
