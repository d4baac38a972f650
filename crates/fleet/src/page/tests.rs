use super::*;
use crate::mapping::Selector;

fn read(page: &str) -> Page {
    PageReader::new(&MetricMapping::default()).read(page.as_bytes())
}

fn load(waiting: u32, running: u32, kv_usage: f64) -> Load {
    Load {
        waiting: Some(waiting),
        running: Some(running),
        kv_usage: Some(kv_usage),
    }
}

#[test]
fn a_page_of_vllm() {
    let page = read(include_str!("../../tests/fixtures/vllm-0.32.0-metrics.txt"));
    assert_eq!(page.engine, Some(Engine::Vllm));
    assert_eq!(page.load, load(0, 0, 0.0));
    assert_eq!(page.kv_capacity_tokens, Some(8192 * 32));
    assert_eq!(
        page.lora,
        Some(LoraInfo {
            active: Vec::new(),
            max: Some(2)
        }),
        "the newest series is the empty one"
    );
    assert_eq!(page.started, Some(1.7952252007e+09));
}

#[test]
fn a_page_of_llama_cpp() {
    let page = read(include_str!("../../tests/fixtures/llamacpp-metrics.txt"));
    assert_eq!(page.engine, Some(Engine::LlamaCpp));
    assert_eq!(
        page.load,
        Load {
            waiting: Some(0),
            running: Some(0),
            kv_usage: None
        }
    );
    assert_eq!((page.kv_capacity_tokens, page.lora), (None, None));
}

#[test]
fn pages_of_the_others() {
    let sglang = "sglang:num_queue_reqs{m=\"a\"} 2\nsglang:num_running_reqs{m=\"a\"} 5\nsglang:token_usage 0.25\n\
                  sglang:cache_config_info{page_size=\"64\",num_pages=\"100\"} 1\n";
    let triton = "nv_trt_llm_request_metrics{model=\"t\",request_type=\"waiting\"} 3\n\
                  nv_trt_llm_request_metrics{model=\"t\",request_type=\"scheduled\"} 4\n\
                  nv_trt_llm_request_metrics{model=\"t\",request_type=\"max\"} 99\n\
                  nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n\
                  nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 32\n\
                  nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 10\n";
    let serve = "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 2\ntrtllm_kv_cache_utilization 0.75\n\
                 trtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 7\n";
    let table = [
        (sglang, Engine::Sglang, load(2, 5, 0.25), 6400),
        (triton, Engine::Triton, load(3, 4, 0.5), 320),
        (serve, Engine::TrtllmServe, load(1, 2, 0.75), 224),
    ];
    for (text, engine, load, capacity) in table {
        let page = read(text);
        assert_eq!(
            (page.engine, page.load, page.kv_capacity_tokens),
            (Some(engine), load, Some(capacity)),
            "{engine:?}"
        );
    }
}

#[test]
fn ranks_of_one_server_are_added_up() {
    let page = read(
        "vllm:num_requests_waiting{engine=\"0\"} 2\nvllm:num_requests_waiting{engine=\"1\"} 3\n\
         vllm:kv_cache_usage_perc{engine=\"0\"} 0.1\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.9\n\
         vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"10\"} 1\n\
         vllm:cache_config_info{engine=\"1\",block_size=\"16\",num_gpu_blocks=\"10\"} 1\n",
    );
    assert_eq!(
        page.load,
        Load {
            waiting: Some(5),
            running: None,
            kv_usage: Some(0.9)
        }
    );
    assert_eq!(page.kv_capacity_tokens, Some(320));
}

#[test]
fn the_newest_adapters_count_and_spaces_do_not() {
    let page = read(
        "vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"a, b\",waiting_lora_adapters=\" c,a\"} 2e9\n\
         vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"old\",waiting_lora_adapters=\"\"} 1e9\n",
    );
    let active = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(
        page.lora,
        Some(LoraInfo {
            active,
            max: Some(4)
        })
    );
}

#[test]
fn named_metrics_replace_the_presets_and_the_newest_series_counts() {
    let named = |text: &str| MetricSource::Named(text.parse::<Selector>().unwrap());
    let mapping = MetricMapping {
        queued: named("my_queue{kind=wait}"),
        running: MetricSource::Off,
        kv_usage: named("my_kv"),
        ..MetricMapping::default()
    };
    let page = PageReader::new(&mapping).read(
        b"my_queue{kind=\"wait\"} 7 200\nmy_queue{kind=\"wait\"} 8 100\nmy_queue{kind=\"run\"} 9 300\n\
          vllm:num_requests_waiting 55\nvllm:num_requests_running 66\nmy_kv 0.1\nmy_kv 0.2\n",
    );
    assert_eq!(
        page.load,
        Load {
            waiting: Some(7),
            running: None,
            kv_usage: Some(0.2)
        }
    );
}

#[test]
fn nonsense_is_no_value() {
    for text in [
        "",
        "<html>\n<body>404 not found</body>\n",
        "vllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc +Inf\n",
        "vllm:num_requests_waiting -1\nvllm:num_requests_running 1e30\n",
        "vllm:cache_config_info{block_size=\"None\",num_gpu_blocks=\"None\"} 1\n",
        "vllm:cache_config_info{block_size=\"99999999999\",num_gpu_blocks=\"99999999999\"} 1\n",
    ] {
        let page = read(text);
        assert_eq!(
            (page.load, page.kv_capacity_tokens),
            (Load::default(), None),
            "{text}"
        );
    }
    assert_eq!(
        read("vllm:kv_cache_usage_perc 1.5\n").load.kv_usage,
        Some(1.0)
    );
}
