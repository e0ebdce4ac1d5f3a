//! Every help text, as it reads.

use expect_test::expect_file;

use crate::harness::Scene;

#[test]
fn help_reads_well() {
    let mut scene = Scene::without_server();
    for verb in [
        "",
        "serve",
        "verify",
        "org",
        "org create",
        "org get",
        "org list",
        "org policy",
        "key",
        "key create",
        "key get",
        "key list",
        "key rotate",
        "key end-rotation",
        "key disable",
        "key enable",
        "key relabel",
        "key import",
        "key revoke",
        "service-account",
        "service-account create",
        "service-account list",
        "activity",
        "operator",
        "operator status",
        "operator confirm-clock",
        "operator reissue",
        "operator rotate-pepper",
        "operator peppers",
    ] {
        assert_eq!(scene.run(format!("{verb} --help").trim_start()).code, 0, "{verb}");
    }
    scene.check(&expect_file!["golden/help.txt"]);
}
