//! `EndpointPickerConfig` through the whole program.

mod support;

use std::process::Command;

use support::objects::{gateway, pool, route};
use support::{Answer, Folder, Pointsman, Server, chat, eventually, free_port, post, slice};

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

/// The default of upstream's charts.
const CHART: &str = "\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
";

fn named(name: &'static str) -> Server {
    Server::start(&["llama"], move |_| {
        Answer::json(200, "{\"choices\": []}".to_owned()).header("x-server", name)
    })
}

/// A pool of these servers with a role each, behind a gateway.
fn objects(servers: &[(&str, &Server)]) -> Folder {
    let rules = "    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    let mut all = gateway("edge", "gateway", free_port())
        + &pool("edge", "llama", "llama")
        + &route("edge", "route", rules);
    for (role, server) in servers {
        let labels = format!("app: llama, llm-d.ai/role: {role}");
        all += &slice("edge", &format!("llama-{role}"), &labels, server.address);
    }
    Folder::new(&[("all.yaml", &all)])
}

/// How many of 20 requests went to each server.
fn spread(gateway: &Pointsman, names: [&str; 2]) -> [usize; 2] {
    let mut counts = [0; 2];
    for _ in 0..20 {
        let reply = post(gateway.data, "/v1/chat/completions", &chat("llama"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        for (name, count) in names.iter().zip(&mut counts) {
            *count += usize::from(reply.header("x-server") == *name);
        }
    }
    counts
}

#[test]
fn a_filter_on_labels_decides_and_without_it_all_serve() {
    let (prefill, decode) = (named("prefill"), named("decode"));
    let folder = objects(&[("prefill", &prefill), ("decode", &decode)]);
    let config = format!(
        "{HEAD}plugins: [{{type: decode-filter}}, {{type: active-request-scorer}}, {{type: random-picker}}]"
    );
    let file = Folder::new(&[("picker.yaml", &config)]);
    let file = file.path().join("picker.yaml");
    let gateway = Pointsman::files(folder.path(), &["--picker-config", file.to_str().unwrap()]);
    gateway.wait_ready(2);
    assert_eq!(spread(&gateway, ["prefill", "decode"]), [0, 20]);
    // Its listener's port is the next one's.
    drop(gateway);

    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let counts = spread(&gateway, ["prefill", "decode"]);
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
}

#[test]
fn the_default_chart_serves_as_gateway_and_as_picker() {
    let (one, other) = (named("one"), named("other"));
    let folder = objects(&[("a", &one), ("b", &other)]);
    let chart = Folder::new(&[("picker.yaml", CHART)]);
    let file = chart.path().join("picker.yaml");
    let file = file.to_str().unwrap();

    let gateway = Pointsman::files(folder.path(), &["--picker-config", file]);
    gateway.wait_ready(2);
    let counts = spread(&gateway, ["one", "other"]);
    assert_eq!(counts.iter().sum::<usize>(), 20);

    for how in [
        format!("--config-file={file}"),
        format!("--configText={CHART}"),
    ] {
        let picker = Pointsman::epp(folder.path(), &[&how]);
        eventually("the picker is ready", || {
            (picker.readyz().status == 200).then_some(())
        });
        assert!(
            picker.log().contains("EndpointPickerConfig"),
            "{}",
            picker.log()
        );
    }
}

#[test]
fn a_wrong_file_ends_the_start_with_its_place() {
    let bad = format!("{HEAD}plugins:\n- type: quue-scorer\n");
    let file = Folder::new(&[("picker.yaml", &bad)]);
    let file = file.path().join("picker.yaml");
    let file = file.to_str().unwrap();
    for args in [
        [
            "serve",
            "http://127.0.0.1:9",
            "--listen",
            "127.0.0.1:0",
            "--picker-config",
            file,
        ],
        [
            "epp",
            "-f",
            file,
            "--pool-name",
            "x",
            &format!("--config-file={file}"),
        ],
    ] {
        let args: Vec<&str> = args.to_vec();
        let out = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(&args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{args:?}: {text}");
        for part in ["line 4", "plugins[0].type", "did you mean queue-scorer?"] {
            assert!(text.contains(part), "{args:?}: {text}");
        }
    }
}
