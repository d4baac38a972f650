//! What a model server tells about itself on its metrics page, under vLLM's names.

use std::collections::BTreeSet;

/// Counters of one server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Requests that it has finished (`vllm:request_success_total`).
    pub requests: f64,
    /// Prompt tokens that it has computed rather than found (`vllm:prompt_tokens_by_source_total`).
    pub computed: f64,
    /// Adapters that have run on it (`vllm:lora_requests_info`, whose series stay).
    pub adapters: BTreeSet<String>,
}

impl Counters {
    /// Reads a page; what is not there counts as none.
    #[must_use]
    pub fn read(page: &str) -> Self {
        let mut counters = Self::default();
        for line in page.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let number = || value.parse().unwrap_or(0.0);
            match name {
                "vllm:request_success_total" => counters.requests += number(),
                "vllm:prompt_tokens_by_source_total"
                    if label(labels, "source") == Some("local_compute") =>
                {
                    counters.computed += number();
                }
                "vllm:lora_requests_info" => {
                    let running = label(labels, "running_lora_adapters").unwrap_or("");
                    let names = running.split(',').filter(|name| !name.is_empty());
                    counters.adapters.extend(names.map(ToOwned::to_owned));
                }
                _ => {}
            }
        }
        counters
    }
}

/// The value of a label; the values of interest have no escapes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = labels;
    loop {
        let (key, tail) = rest.split_once("=\"")?;
        let (value, tail) = tail.split_once('"')?;
        if key.trim_start_matches(',') == name {
            return Some(value);
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_by_name_and_label() {
        let page = "# HELP vllm:request_success_total n\n\
            vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"m\"} 3.0\n\
            vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"m\"} 4.0\n\
            vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"m\",source=\"local_compute\"} 120.0\n\
            vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"m\",source=\"local_cache_hit\"} 900.0\n\
            vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a,b\",waiting_lora_adapters=\"c\"} 1.7e+09\n\
            vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"b\",waiting_lora_adapters=\"\"} 1.7e+09\n";
        let read = Counters::read(page);
        assert_eq!((read.requests, read.computed), (7.0, 120.0));
        assert_eq!(read.adapters.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_page_of_something_else_is_empty() {
        for page in [
            "",
            "x",
            "x{ 1",
            "vllm:lora_requests_info{running_lora_adapters=\"a 1",
        ] {
            assert_eq!(Counters::read(page), Counters::default(), "{page:?}");
        }
    }
}
