use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::settings::{Settings, parse};

const SMALLEST: &str = "[cluster]\nname = \"main\"\n[nodes.n1]\naddress = \"127.0.0.2\"\n";

fn read(lines: &str) -> Result<Settings, Faults> {
    parse(&format!("{SMALLEST}[backup]\n{lines}\n"), Path::new("/srv/pg"), Files::Ignored)
}

fn faults(lines: &str) -> String {
    read(lines).unwrap_err().to_string().replace("/srv/pg/", "")
}

#[test]
fn defaults_are_filled_in() {
    let backup = read("url = \"s3://bucket\"\nregion = \"eu-central-1\"").unwrap().backup.unwrap();
    insta::assert_debug_snapshot!(backup, @r#"
    BackupSettings {
        url: Bucket {
            provider: S3,
            bucket: "bucket",
            prefix: "pgdock",
        },
        store: StoreSettings {
            endpoint: None,
            region: Some(
                "eu-central-1",
            ),
            account: None,
            tls: true,
            ca: None,
            credentials: File,
            credentials_file: "/srv/pg/secrets/backup.env",
        },
        key: None,
        compression: 1,
        wal: Archive,
        wal_every: 1s,
        schedule: None,
        jitter: 600s,
        keep: Keep {
            count: Some(
                7,
            ),
            age: None,
            daily: None,
            weekly: None,
            monthly: None,
        },
        verify_query: None,
        checksums: Fail,
        processes: 2,
    }
    "#);
    assert_eq!(
        backup,
        BackupSettings { store: backup.store.clone(), ..BackupSettings::new(backup.url.clone(), Path::new("/")) }
    );
}

#[test]
fn everything_can_be_said() {
    let backup = read(
        r#"
url = "file:backups"
encrypt = true
key_command = "vault read key"
compression = 9
wal = "stream"
wal_every = "500ms"
schedule = "0 3 * * *"
jitter = "0s"
verify_query = "shared/tests/verify.sql"
checksums = "warn"
processes = 4
[backup.keep]
count = 3
age = "30d"
daily = 7
weekly = 4
monthly = 12
"#,
    );
    let backup = backup.unwrap().backup.unwrap();
    assert_eq!(backup.url, BackupUrl::File("/srv/pg/backups".into()));
    assert_eq!(backup.key, Some(KeySource::Command("vault read key".into())));
    assert_eq!((backup.compression, backup.processes, backup.checksums), (9, 4, BadPages::Warn));
    assert_eq!((backup.wal, backup.wal_every), (WalMode::Stream, Duration::from_millis(500)));
    assert_eq!(backup.schedule.unwrap().as_str(), "0 3 * * *");
    assert_eq!(backup.verify_query, Some("/srv/pg/shared/tests/verify.sql".into()));
    let age = Some(Duration::from_secs(30 * 86_400));
    let keep = Keep { count: Some(3), age, daily: Some(7), weekly: Some(4), monthly: Some(12) };
    assert_eq!(backup.keep, keep);
    let inline = read("url = \"file:b\"\nkeep = { age = \"1d\" }").unwrap().backup.unwrap().keep;
    assert_eq!(inline, Keep { count: None, age: Some(Duration::from_secs(86_400)), ..Keep::default() });
    let file = read("url = \"file:b\"\nencrypt = true").unwrap().backup.unwrap().key;
    assert_eq!(file, Some(KeySource::File("/srv/pg/secrets/backup.key".into())));
}

#[test]
fn faults_say_what_to_do() {
    insta::assert_snapshot!(faults("schedule = \"0 3 * * *\""), @r#"cluster.toml:5: backup.url: expected a text in quotes, found nothing; add url = "s3://bucket/prefix" to [backup]"#);
    insta::assert_snapshot!(faults("url = \"s3://key:hunter2@b\""), @"cluster.toml:6: backup.url: expected file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, found s3://… with a password in it; write it into secrets/backup.env, and take it off the URL: this file is no place for secrets");
    insta::assert_snapshot!(faults("url = \"s3://b\"\nschedule = \"daily\"\nkeep = {}\nwal_every = \"1s\"\nkey_command = \"x\""), @r#"
    cluster.toml:5: backup.region: expected the region of the bucket, found nothing; add region = "eu-central-1" to [backup]; or endpoint, where it is not Amazon's
    cluster.toml:7: backup.schedule: expected five fields as in crontab(5), in UTC, such as "0 3 * * *", or "@daily", found "daily" (invalid pattern: pattern must have 5 fields when seconds are disallowed); correct it
    cluster.toml:8: backup.keep: expected count, age, daily, weekly or monthly, found none of them; write it as in keep = { count = 7 }
    cluster.toml:9: backup.wal_every: expected it beside wal = "stream", found it alone; remove it, or add that
    cluster.toml:10: backup.key_command: expected encrypt = true beside it, found it alone; add encrypt = true, or remove it
    "#);
    insta::assert_snapshot!(faults("url = \"file:b\"\nregion = \"x\"\nkeep = { counts = 7, age = \"0s\" }\ncompression = 20"), @r#"
    cluster.toml:7: backup.region: expected nothing: it belongs to a url of s3, found it beside a url of file; remove it
    cluster.toml:8: backup.keep.age: expected more than nothing, found 0s; raise it, or remove it
    cluster.toml:8: backup.keep.counts: expected a known key, found `counts`; did you mean `count`? known: age, count, daily, weekly, monthly
    cluster.toml:9: backup.compression: expected a whole number from 1 to 19, found 20; choose one of these
    "#);
    let docker = SMALLEST.replace("name = \"main\"", "name = \"main\"\nexecutor = \"ssh\"");
    let two = "[nodes.n2]\naddress = \"127.0.0.3\"\n[witness]\nurl = \"etcd://h\"\n";
    let file = |url: &str| {
        let text = format!("{docker}{two}[backup]\nurl = \"{url}\"\n");
        parse(&text, Path::new("/srv/pg"), Files::Ignored).err().map(|f| f.to_string()).unwrap_or_default()
    };
    assert!(file("file:backups").contains("a folder that each of them has for itself"), "{}", file("file:backups"));
    assert_eq!(file("file:/mnt/backups"), "");
}

#[test]
fn files_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        std::fs::write(secrets.join(name), text).unwrap();
        std::fs::set_permissions(secrets.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let checked = |more: &str| {
        let toml = format!("{SMALLEST}[backup]\nurl = \"s3://b\"\nregion = \"r\"\n{more}\n");
        let faults = parse(&toml, dir.path(), Files::Checked).err().map(|f| f.to_string()).unwrap_or_default();
        faults.replace(&dir.path().display().to_string(), "").replace("/cluster.toml", "cluster.toml")
    };
    let credentials = "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n";
    insta::assert_snapshot!(checked(""), @r#"/secrets/backup.env: expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, found nothing; write them, or set credentials = "instance" where this machine has an identity of its own"#);
    write("witness.env", credentials, 0o600);
    let same = checked("[witness]\nurl = \"s3://w\"\nregion = \"r\"");
    assert!(same.contains("cp -p secrets/witness.env secrets/backup.env"), "{same}");
    write("backup.env", credentials, 0o600);
    assert_eq!(checked(""), "");
    insta::assert_snapshot!(checked("encrypt = true\nverify_query = \"none.sql\""), @"
    cluster.toml:8: backup.encrypt: expected 64 hexadecimal digits in secrets/backup.key, found No such file or directory (os error 2); `pgdock init` makes a key; keep a copy of it elsewhere: without it no backup can be read
    cluster.toml:9: backup.verify_query: expected a file of SQL, beside cluster.toml, found /none.sql (No such file or directory (os error 2)); write it, such as shared/tests/verify.sql, or correct the path
    ");
    write("backup.key", "0", 0o644);
    let open = checked("encrypt = true");
    assert!(open.contains("a key that nobody else can read"), "{open}");
    write("backup.key", "0", 0o600);
    assert_eq!(checked("encrypt = true"), "");
}
