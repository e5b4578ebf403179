use std::os::unix::net::UnixListener;

use super::*;

fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(dir.path()).unwrap();
    (dir, Registry { base })
}

fn controller(dir: &Path) -> UnixListener {
    private_dir(&dir.join(".mesh")).unwrap();
    UnixListener::bind(controller_socket(dir)).unwrap()
}

#[test]
fn without_a_name_the_only_live_mesh_is_meant() {
    let (_keep, registry) = registry();
    assert!(matches!(registry.find(None), Err(Error::None)));
    let first = registry.claim("demo", true).unwrap();
    let _first = controller(&first.mesh.dir);
    assert_eq!(registry.find(None).unwrap(), first.mesh);
    let second = registry.claim("demo", true).unwrap();
    assert_eq!(second.mesh.name, "demo-2");
    let _second = controller(&second.mesh.dir);
    let error = registry.find(None).unwrap_err();
    assert_eq!(error.to_string(), "2 local meshes are running");
    assert_eq!(error.hint().unwrap(), "say which with --local=NAME: demo, demo-2");
    assert_eq!(registry.find(Some("demo-2")).unwrap(), second.mesh);
    let error = registry.find(Some("shop")).unwrap_err();
    assert_eq!(error.hint().unwrap(), "running: demo, demo-2");
}

#[test]
fn a_registration_ends_with_its_guard_and_leaves_the_directory() {
    let (_keep, registry) = registry();
    let users = tempfile::tempdir().unwrap();
    let _controller = controller(users.path());
    let entry = registry.register("shop", users.path()).unwrap();
    assert_eq!(registry.find(Some("shop")).unwrap().dir, fs::canonicalize(users.path()).unwrap());
    let other = tempfile::tempdir().unwrap();
    assert!(matches!(registry.register("shop", other.path()), Err(Error::Taken(_))));
    drop(entry);
    assert!(matches!(registry.find(Some("shop")), Err(Error::Unknown { .. })));
    assert!(controller_socket(users.path()).exists());
}

#[test]
fn what_a_killed_run_left_is_swept_and_what_lives_is_not() {
    let (_keep, registry) = registry();
    let dead = registry.claim("dead", false).unwrap().mesh;
    let young = registry.claim("young", false).unwrap();
    let users = tempfile::tempdir().unwrap();
    drop(controller(users.path()));
    fs::write(users.path().join(".mesh/controller.json"), r#"{"pid":2147483646}"#).unwrap();
    std::mem::forget(registry.register("link", users.path()).unwrap());
    assert_eq!(registry.live().unwrap(), []);
    assert!(!dead.dir.exists());
    assert!(young.mesh.dir.exists());
    assert!(registry.base.join("link").symlink_metadata().is_err());
    assert!(users.path().join(".mesh/controller.json").exists());
    assert!(matches!(registry.claim("young", false), Err(Error::Taken(_))));
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(private_dir(dir.path()), Err(Error::Unsafe { .. })));
}

#[test]
fn a_directory_suggests_a_label() {
    for (dir, name) in [("/a/My Shop", "my-shop"), ("/", "local"), ("/x/..", "local"), ("/x/_a_", "a")] {
        assert_eq!(name_for(Path::new(dir)), name, "{dir}");
    }
}
