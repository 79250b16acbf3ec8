//! What a Fortanix enclave does: prints, takes arguments, hashes, runs threads, talks TCP.
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;

fn main() {
    println!("hello from an enclave");
    let arguments: Vec<String> = std::env::args().collect();
    println!("arguments: {:?}", &arguments[1..]);

    let mut words: HashMap<&str, usize> = HashMap::new();
    for word in "a rose is a rose is a rose".split(' ') {
        *words.entry(word).or_insert(0) += 1;
    }
    println!("rose: {}", words["rose"]);

    let total = Arc::new(Mutex::new(0u64));
    let workers: Vec<_> = (1..=3u64)
        .map(|n| {
            let total = Arc::clone(&total);
            thread::spawn(move || {
                for _ in 0..100 {
                    *total.lock().unwrap() += n;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    println!("total: {}", total.lock().unwrap());

    match arguments.get(1).map(String::as_str) {
        Some("panic") => panic!("asked to"),
        Some("fail") => std::process::exit(3),
        Some(address) if address.contains(':') => {
            let mut stream = TcpStream::connect(address).expect("no connection");
            stream.write_all(b"ping").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            println!("answer: {answer}");
        }
        _ => {}
    }
}
