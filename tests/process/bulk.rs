//! A gigabyte each way: every byte arrives, and nobody keeps them.

use std::time::{Duration, Instant};

use crate::support::data::{self, Data};
use crate::support::http::{Connection, Request};
use crate::support::upstream::{self, Upstream};
use crate::support::world::{GatewayFile, World, peak_memory_kib};

const GIB: u64 = 1 << 30;
/// A busy machine may take minutes for it.
const DEADLINE: Duration = Duration::from_secs(900);
const MAX_MEMORY_KIB: u64 = 64 * 1024;

#[test]
fn a_gigabyte_passes_each_way_unchanged_and_neither_process_grows_with_it() {
    let (world, service) = (World::new(), Upstream::start());
    let gateway = world.gateway(GatewayFile::default());
    let agent = world.agent(&gateway, &[("*", &service.url())], "");
    let expected = Data::new(GIB).digest();

    let started = Instant::now();
    let mut connection = Connection::open(gateway.public(), DEADLINE).unwrap();
    connection.send(&Request::get("bulk", &format!("/bytes/{GIB}"))).unwrap();
    let head = connection.head().unwrap();
    let received = data::digest(connection.body(&head))
        .unwrap_or_else(|error| panic!("after {:?}: {error}", started.elapsed()));
    let download = started.elapsed();
    assert_eq!(received, expected);

    let started = Instant::now();
    let writer = connection.within(DEADLINE).writer();
    let head = format!("POST /digest HTTP/1.1\r\nhost: bulk\r\ncontent-length: {GIB}\r\n\r\n");
    upstream::send(writer, head.as_bytes()).unwrap();
    upstream::send(writer, Data::new(GIB)).unwrap();
    let said = connection.response().unwrap();
    let upload = started.elapsed();
    assert_eq!((said.status, said.text()), (200, expected));

    let memory = [&gateway.process, &agent.process].map(|process| peak_memory_kib(process.pid()));
    eprintln!(
        "1 GiB down in {:.1} s, up in {:.1} s; peak memory: gateway {} KiB, agent {} KiB",
        download.as_secs_f64(),
        upload.as_secs_f64(),
        memory[0],
        memory[1]
    );
    assert!(memory.iter().all(|&kib| kib < MAX_MEMORY_KIB), "{memory:?} KiB");
    // Whatever moved is on the books of both.
    let scrape = gateway.scrape();
    for direction in ["direction=\"in\"", "direction=\"out\""] {
        let counted = scrape.sum("adit_service_bytes_total", &["service=\"*\"", direction]);
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let least = GIB as f64;
        assert!(counted >= least, "{counted} {direction}");
    }
}
