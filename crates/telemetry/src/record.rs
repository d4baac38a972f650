//! What is known about one exchange when it is over.

use std::net::IpAddr;
use std::time::Duration;

/// Everything about one finished exchange. It borrows from whoever served the exchange; nothing in it is a body, a
/// prompt, a query string or a credential.
#[derive(Debug, Clone, Default)]
pub struct ExchangeRecord<'a> {
    /// `x-request-id`.
    pub request_id: &'a str,
    /// Trace id, lower case hex, where the request is part of a trace.
    pub trace_id: Option<&'a str>,
    /// HTTP method.
    pub method: &'a str,
    /// Path without the query.
    pub path: &'a str,
    /// Host asked for, without port.
    pub host: &'a str,
    /// Route that matched; empty: none.
    pub route: &'a str,
    /// Pool that served; empty: none.
    pub pool: &'a str,
    /// Name of the server that answered last; empty: none.
    pub endpoint: &'a str,
    /// Request format: `chat_completions`, `messages`, ... ; empty for opaque requests. The GenAI operation and
    /// provider are derived from it.
    pub dialect: &'a str,
    /// Model the client asked for; empty: none.
    pub model: &'a str,
    /// Model the server was asked for; empty: the same.
    pub target_model: &'a str,
    /// Objective that gave the priority.
    pub objective: Option<&'a str>,
    /// Fairness id of the request's flow; empty: the default flow.
    pub fairness: &'a str,
    /// Priority.
    pub priority: i32,
    /// Status sent to the client.
    pub status: u16,
    /// `error.code` of our own answer, or of what broke the stream.
    pub error_code: Option<&'static str>,
    /// What an endpoint picker outside made of it: `picked`, `fallback`, `immediate`, `fail_open` or `failed`. `None`:
    /// none was asked.
    pub picker: Option<&'static str>,
    /// Time that picker took.
    pub picker_took: Duration,
    /// Servers tried.
    pub attempts: u32,
    /// Whether the answer was a stream of events.
    pub stream: bool,
    /// Request body bytes.
    pub request_bytes: u64,
    /// Response body bytes.
    pub response_bytes: u64,
    /// Time waited in our queue.
    pub queued: Duration,
    /// Time until the first token of a stream, or the first body byte of an answer that is not looked into. A whole
    /// answer to inference has none: when its bytes come says nothing about its first token.
    pub ttft: Option<Duration>,
    /// Whole exchange.
    pub duration: Duration,
    /// Tokens as the server reported them.
    pub usage: Option<Usage>,
    /// Prompt tokens the pick expected in the server's prefix cache.
    pub hit_tokens_predicted: u32,
    /// Seconds until the first token as the pick predicted.
    pub predicted_ttft: Option<f64>,
    /// Finish reason of the first choice.
    pub finish: Option<&'a str>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// How it ended.
    pub ended: Ended,
}

/// Token counts that a server reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub prompt: u32,
    /// Generated tokens.
    pub completion: u32,
    /// Prompt tokens that came from the server's cache, where it says so.
    pub cached: Option<u32>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The client has the whole answer.
    #[default]
    Complete,
    /// The client went away.
    ClientGone,
    /// The server broke the answer off.
    UpstreamBroken,
    /// The endpoint picker through which the answer passed broke it off.
    PickerBroken,
    /// A deadline passed.
    Deadline,
    /// It had to end for requests of a higher class.
    Evicted,
}

impl Ended {
    /// The word for logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroken => "upstream_broken",
            Self::PickerBroken => "picker_broken",
            Self::Deadline => "deadline",
            Self::Evicted => "evicted",
        }
    }
}

impl ExchangeRecord<'_> {
    /// The reason why this exchange counts as failed: our own code, else what the ending or the status says. A client
    /// that left is no failure.
    #[must_use]
    pub fn failure(&self) -> Option<&'static str> {
        match (self.error_code, self.ended, self.status) {
            (Some(code), _, _) => Some(code),
            (None, Ended::UpstreamBroken, _) => Some("upstream_broken"),
            (None, Ended::PickerBroken, _) => Some("picker_broken"),
            (None, Ended::Deadline, _) => Some("deadline"),
            (None, Ended::Evicted, _) => Some("evicted"),
            (None, _, 500..) => Some("upstream_5xx"),
            (None, _, 400..) => Some("upstream_4xx"),
            _ => None,
        }
    }

    /// Seconds per output token after the first: `(duration - ttft) / (output tokens - 1)` (OpenTelemetry GenAI
    /// conventions, `gen_ai.server.time_per_output_token`). `None` without both numbers or with fewer than two tokens.
    #[must_use]
    pub fn time_per_output_token(&self) -> Option<f64> {
        let (usage, ttft) = (self.usage?, self.ttft?);
        let after_first = usage.completion.checked_sub(1).filter(|&n| n > 0)?;
        Some(self.duration.saturating_sub(ttft).as_secs_f64() / f64::from(after_first))
    }

    /// The model the server was asked for.
    #[must_use]
    pub fn served_model(&self) -> &str {
        if self.target_model.is_empty() {
            self.model
        } else {
            self.target_model
        }
    }

    /// `gen_ai.operation.name` for the request's format.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self.dialect {
            "completions" => "text_completion",
            "embeddings" => "embeddings",
            "chat_completions" | "responses" | "messages" => "chat",
            _ => "generate_content",
        }
    }

    /// `gen_ai.provider.name`: the provider whose format the client speaks.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        if matches!(self.dialect, "messages" | "count_tokens") {
            "anthropic"
        } else {
            "openai"
        }
    }
}
