//! What is found in a data directory, and what is said about it.

use super::*;

fn made(options: &Options) {
    let store = EmbeddedStore::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let events = (0..100).map(|number| event(number, 2_000)).collect();
    runtime.block_on(store.append(&stream("a"), None, events, Urgency::Normal)).unwrap();
}

/// After `change` to a database with events, opening it gives an error that says `says`.
#[track_caller]
fn check(change: impl FnOnce(&Options), says: &str) {
    let root = directory();
    let options = options(root.path().join("data"));
    made(&options);
    change(&options);
    let Err(error) = EmbeddedStore::open(&options) else { panic!("opened; wanted `{says}`") };
    assert!(error.to_string().contains(says), "`{error}` says nothing of `{says}`");
}

fn cut(options: &Options, bytes: u64) {
    let file = fs::File::options().write(true).open(options.directory.join("ledger.db")).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn what_is_wrong_is_said() {
    let database = |options: &Options| options.directory.join("ledger.db");
    check(|o| fs::write(database(o), vec![7; 100_000]).unwrap(), "not a keyledger database");
    check(|o| cut(o, 0), "damaged: it is empty");
    check(|o| cut(o, 40_960), "damaged");
    check(|o| cut(o, 50_000), "damaged");
    check(|o| cut(o, 100), "damaged");
    check(
        |o| {
            fs::remove_file(database(o)).unwrap();
            fs::write(o.directory.join("ledger.db-wal"), "x").unwrap();
        },
        "missing",
    );
    let sql =
        |statement: &'static str| move |o: &Options| foreign(o).execute_batch(statement).unwrap();
    check(sql("PRAGMA application_id = 7"), "not a keyledger database");
    check(sql("PRAGMA user_version = 2"), "schema 2");
    check(sql("PRAGMA user_version = 0"), "changed");
    check(sql("DROP TRIGGER events_are_never_updated"), "triggers");
    check(sql("CREATE TABLE extra (a)"), "changed");
}

#[test]
fn a_foreign_database_is_left_as_it_is() {
    let root = directory();
    let options = options(root.path());
    let path = root.path().join("ledger.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(EmbeddedStore::open(&options), Err(OpenError::NotKeyledger)));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_directory_has_one_store() {
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    let Err(error) = EmbeddedStore::open(&options) else { panic!("opened twice") };
    let text = error.to_string();
    assert!(text.contains(options.directory.to_str().unwrap()) && text.contains("stop"), "{text}");
    drop(store);
    EmbeddedStore::open(&options).unwrap();
}

#[test]
fn only_the_owner_can_read_the_files() {
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&options.directory), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&options.directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["ledger.db", "ledger.db-shm", "ledger.db-wal", "lock", "reserve"]);
    drop(store);
}

#[test]
fn a_database_half_made_is_made_anew() {
    let root = directory();
    let options = options(root.path().join("data"));
    fs::create_dir(&options.directory).unwrap();
    fs::write(options.directory.join("ledger.db.new"), "half").unwrap();
    EmbeddedStore::open(&options).unwrap();
    assert!(!options.directory.join("ledger.db.new").exists());
}

#[test]
fn commits_are_synced() {
    let root = directory();
    let options = options(root.path().join("data"));
    drop(EmbeddedStore::open(&options).unwrap());
    let connection = writer::connect(&options.directory.join("ledger.db")).unwrap();
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    assert_eq!(pragma("synchronous").unwrap(), 2, "FULL");
    assert_eq!(pragma("wal_autocheckpoint").unwrap(), 0);
    let mode: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}
