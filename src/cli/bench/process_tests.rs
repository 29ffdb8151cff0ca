use super::*;

#[test]
fn listening_sockets_are_found_by_port() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1E62 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1E62 0100007F:BEEF 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F:1E63 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
   3: broken";
    assert_eq!(listening_inodes(table, 0x1E62), ["4711"]);
    assert_eq!(listening_inodes(table, 1), Vec::<String>::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_finds_itself() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let own = std::process::id();
    assert_eq!(listening_on(listener.local_addr().unwrap()), Some(own));
    assert!(cpu_time(own).is_some());
    assert!(resident_bytes(own).unwrap() > 1 << 20);
    assert!(raise_file_limit() >= 64);
}

#[test]
fn disk_bytes_are_those_of_all_files() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("inner")).unwrap();
    fs::write(directory.path().join("inner/file"), vec![7; 100_000]).unwrap();
    fs::File::open(directory.path().join("inner/file"))
        .unwrap()
        .sync_all()
        .unwrap();
    assert!((100_000..200_000).contains(&disk_bytes(directory.path())));
    assert_eq!(disk_bytes(&directory.path().join("missing")), 0);
}

#[test]
fn a_program_that_ends_is_an_error_with_its_words() {
    let error = Spawned::start(Path::new("/bin/ls"), None, false)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("the server did not start: "), "{error}");
}
