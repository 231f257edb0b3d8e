use leasehold_guard::body;
use tokio::task::JoinHandle;

use super::*;

fn settings() -> Settings {
    Settings {
        max_connections: 2,
        max_header: 16 << 10,
        header_timeout: Duration::from_secs(2),
        answer_timeout: Duration::from_secs(60),
        shutdown_timeout: Duration::from_secs(5),
        busy: busy("/-/"),
    }
}

/// Answers `/slow` after a second, `/never` never, and everything else with the peer's address.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Body>, Infallible> {
    match request.uri().path() {
        "/slow" => sleep(Duration::from_secs(1)).await,
        "/never" => std::future::pending().await,
        _ => {}
    }
    Ok(Response::new(body::full(peer.to_string())))
}

struct Running {
    address: SocketAddr,
    connections: Connections,
    stop: CancellationToken,
    task: JoinHandle<Drained>,
}

fn run(settings: Settings) -> Running {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), settings).unwrap();
    let (address, connections) = (listener.local_addr(), listener.connections());
    let stop = CancellationToken::new();
    let service = |peer| tower::service_fn(move |request| answer(request, peer));
    let task = tokio::spawn(listener.serve(service, stop.clone()));
    Running { address, connections, stop, task }
}

impl Running {
    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Waits until so many connections are open.
    async fn open(&self, connections: usize) {
        let reached = async {
            while self.connections.open() != connections {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), reached).await.unwrap();
    }
}

/// All that the server sends, until it closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_is_served_for_its_peer_and_the_port_is_the_real_one() {
    let running = run(settings());
    assert_ne!(running.address.port(), 0);
    let stream = running.send(GET).await;
    let peer = stream.local_addr().unwrap().to_string();
    let text = rest(stream).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(&peer), "{text}");
    running.open(0).await;
}

#[tokio::test]
async fn http_2_is_understood_without_an_upgrade() {
    use http_body_util::BodyExt as _;

    let running = run(settings());
    let stream = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut client, connection) = handshake.unwrap();
    let connection = tokio::spawn(connection);
    for path in ["/slow", "/"] {
        let request = Request::get(format!("http://a{path}")).body(body::empty()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
        let peer = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(peer.starts_with(b"127.0.0.1:"));
    }
    // A client that stays is asked to go, and goes.
    running.stop.cancel();
    assert_eq!(running.task.await.unwrap(), Drained { cut: 0 });
    connection.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_in_time_closes_the_connection() {
    let running = run(settings());
    // Nothing at all; what may become either version; half a head; and half a second one.
    for (sent, answered) in [
        ("", false),
        ("P", false),
        ("PRI * HTTP/2.0\r\n", false),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
        ("GET / HT", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-A: ", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /", true),
    ] {
        let start = Instant::now();
        let stream = running.send(sent).await;
        let text = rest(stream).await;
        let took = start.elapsed();
        assert_eq!(text.contains("200 OK"), answered, "{sent:?}: {text}");
        let due = Duration::from_secs(2)..Duration::from_millis(2100);
        assert!(due.contains(&took), "{sent:?} took {took:?}");
        running.open(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_being_answered_has_no_head_to_wait_for() {
    let running = run(Settings { header_timeout: Duration::from_millis(100), ..settings() });
    let stream = running.send("GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(rest(stream).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let running = run(settings());
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(20 << 10));
    let text = rest(running.send(&head).await).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_a_place_that_is_free_is_given() {
    let running = run(settings());
    let first = running.send("").await;
    let _second = running.send("").await;
    running.open(2).await;
    let text = rest(running.send(GET).await).await;
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    let (head, document) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", document.len())), "{text}");
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["type"], "/-/problems/unavailable");
    drop(first);
    running.open(1).await;
    assert!(rest(running.send(GET).await).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_client_that_has_gone_takes_its_request_with_it() {
    let running = run(settings());
    let stream = running.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    running.open(1).await;
    drop(stream);
    running.open(0).await;
    // Closing one half is going, too.
    let mut stream = running.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    running.open(1).await;
    stream.shutdown().await.unwrap();
    running.open(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_running_requests_finish_and_takes_no_new_ones() {
    let running = run(settings());
    let stream = running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let idle = running.send("").await;
    running.open(2).await;
    sleep(Duration::from_millis(500)).await;
    running.stop.cancel();
    assert_eq!(rest(idle).await, "");
    let text = rest(stream).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert_eq!(running.task.await.unwrap(), Drained { cut: 0 });
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_what_does_not_finish_in_time() {
    let running = run(settings());
    let stream = running.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    running.open(1).await;
    let start = Instant::now();
    running.stop.cancel();
    assert_eq!(running.task.await.unwrap(), Drained { cut: 1 });
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(rest(stream).await, "");
}

/// Fails as often as it is asked, and then stops the loop.
struct Failing {
    calls: u32,
    stop: CancellationToken,
}

impl Accept for Failing {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        const EMFILE: i32 = 24;
        self.calls += 1;
        match self.calls {
            // What concerns one connection only costs no pause.
            1 => Err(io::ErrorKind::ConnectionAborted.into()),
            2..10 => Err(io::Error::from_raw_os_error(EMFILE)),
            _ => {
                self.stop.cancel();
                std::future::pending().await
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_free_descriptors_the_loop_waits_and_goes_on() {
    let mut failing = Failing { calls: 0, stop: CancellationToken::new() };
    let (stop, start) = (failing.stop.clone(), Instant::now());
    accept(&mut failing, &stop, |_, _| unreachable!()).await;
    // 10 + 20 + 40 + 80 + 160 + 320 + 640 + 1000, each up to a millisecond late.
    let took = start.elapsed().as_millis();
    assert!((2270..2280).contains(&took), "{took}");
}
