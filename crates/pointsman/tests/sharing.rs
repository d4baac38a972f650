//! Two gateways over the same servers that tell each other what they sent where.

mod support;

use support::{CHAT, Pointsman, Sim, eventually, free_port, post};

/// Different long prompts, so that where one is cached matters.
const PROMPTS: usize = 10;

fn prompt(number: usize) -> String {
    let text = format!("Story {number} begins here and goes on for a while. ").repeat(300);
    let messages = format!(r#"[{{"role":"user","content":"{text}"}}]"#);
    format!(r#"{{"model":"llama","messages":{messages},"max_tokens":4}}"#)
}

/// Asks for a prompt; the server that answered, and the tokens of it that its gateway knew to be cached there.
fn ask(gateway: &Pointsman, number: usize) -> (String, u64) {
    let reply = post(gateway.data, CHAT, &prompt(number));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let line = gateway.access(reply.header("x-request-id"));
    let endpoint = line["endpoint"].as_str().expect("a server").to_owned();
    (endpoint, line["hit_tokens_predicted"].as_u64().unwrap_or(0))
}

#[test]
fn what_one_gateway_warmed_the_other_one_uses() {
    let sims: Vec<Sim> = (0..3).map(|_| Sim::start(&["--model", "llama"])).collect();
    let servers: Vec<_> = sims.iter().map(|sim| sim.address).collect();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a-word-that-both-know\n").unwrap();
    let ports = [free_port(), free_port()];
    // The same for both: each leaves itself out.
    let siblings = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let gateway = |port: u16| {
        let listen = format!("127.0.0.1:{port}");
        let flags = [
            "--sharing-listen",
            &listen,
            "--siblings",
            &siblings,
            "--sharing-token-file",
            token.to_str().unwrap(),
        ];
        Pointsman::urls(&servers, &flags)
    };
    let (one, two) = (gateway(ports[0]), gateway(ports[1]));
    for gateway in [&one, &two] {
        gateway.wait_ready(3);
        eventually("one sibling, not two", || {
            (gateway.metric("pointsman_siblings", &[]) == Some(1.0)).then_some(())
        });
    }
    let homes: Vec<String> = (0..PROMPTS).map(|number| ask(&one, number).0).collect();
    let homes_used: std::collections::BTreeSet<_> = homes.iter().collect();
    assert!(homes_used.len() > 1, "prompts are spread: {homes:?}");
    let received = ["outcome=\"received\""];
    eventually("all is told", || {
        let heard = two.metric("pointsman_sharing_events_total", &received)?;
        // Each prompt went to a server and was released.
        (heard >= 2.0 * PROMPTS as f64).then_some(())
    });
    for (number, home) in homes.iter().enumerate() {
        let (endpoint, hit) = ask(&two, number);
        assert_eq!(endpoint, *home, "prompt {number}");
        assert!(
            hit > 500,
            "prompt {number}: {hit} tokens known to be cached"
        );
    }
    drop(one);
    eventually("a lost sibling is not told", || {
        (two.metric("pointsman_siblings", &[]) == Some(0.0)).then_some(())
    });
    let (endpoint, _) = ask(&two, 0);
    assert_eq!(endpoint, homes[0], "and what was learned from it stays");
}
