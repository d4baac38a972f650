//! Mock, floor and load generator together, in one process.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use crate::load::{Figures, Load, run};
use crate::mock::Pace;
use crate::{floor, mock};

const PACE: Pace = Pace {
    chunks: 5,
    every: Duration::from_millis(2),
};

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Runs a load through a floor in front of two mock servers.
async fn through_floor(load: Load) -> Figures {
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let (listener, address) = listen().await;
        servers.push(listener);
        addresses.push(address);
    }
    let (front, address) = listen().await;
    let world = LocalSet::new();
    world.spawn_local(mock::serve(servers, PACE));
    world.spawn_local(async move { floor::serve(front, &addresses).await });
    let load = Load {
        port: address.port(),
        warmup: Duration::ZERO,
        ..load
    };
    world
        .run_until(run(&load, &[std::process::id()]))
        .await
        .unwrap()
}

fn short() -> Load {
    Load {
        connections: 4,
        window: Duration::from_millis(200),
        ..Load::default()
    }
}

#[tokio::test]
async fn requests_pass_and_are_counted_with_their_cpu() {
    let figures = through_floor(short()).await;
    assert_eq!((figures.errors, figures.first_error.as_deref()), (0, None));
    assert!(figures.ok > 0 && figures.events == 0);
    assert!(figures.p50 > 0 && figures.first_byte_p50 <= figures.p50);
    assert!(figures.cpu[0] > 0.0);
}

#[tokio::test]
async fn large_bodies_and_text_completions_pass() {
    let load = Load {
        body: 65536,
        pool: 4,
        path: "/v1/completions".into(),
        ..short()
    };
    let figures = through_floor(load).await;
    assert_eq!((figures.errors, figures.first_error.as_deref()), (0, None));
    assert!(figures.ok > 0);
}

#[tokio::test]
async fn every_chunk_of_a_stream_is_an_event() {
    // One connection and a window that many streams fit into: what ends in it has all its events.
    let load = Load {
        stream: true,
        connections: 1,
        ..short()
    };
    let figures = through_floor(load).await;
    assert_eq!((figures.errors, figures.first_error.as_deref()), (0, None));
    let per_stream = PACE.chunks as u64 + 2;
    assert!(figures.ok > 0);
    let whole = figures.ok * per_stream;
    assert!(
        (whole..whole + per_stream).contains(&figures.events),
        "{figures:?}"
    );
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate() {
    let load = Load {
        rate: Some(50.0),
        ..short()
    };
    let figures = through_floor(load).await;
    assert_eq!(figures.errors, 0);
    // 50/s over 0.2 s is 10 requests, however slow the machine; the last may end after the window.
    assert!((1..=10).contains(&figures.ok), "{figures:?}");
}

#[tokio::test]
async fn refusals_and_dead_ports_are_errors() {
    let refused = through_floor(Load {
        path: "/nowhere".into(),
        ..short()
    })
    .await;
    assert_eq!(refused.ok, 0);
    assert!(refused.errors > 0);
    assert_eq!(
        refused.first_error.as_deref(),
        Some("status 404: not found")
    );

    let (listener, address) = listen().await;
    drop(listener);
    let dead = run(
        &Load {
            port: address.port(),
            warmup: Duration::ZERO,
            ..short()
        },
        &[],
    )
    .await
    .unwrap();
    assert_eq!(dead.ok, 0);
    assert!(dead.errors > 0 && dead.first_error.is_some());
}
