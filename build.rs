//! Tells the binary its commit and target, and gives the embedded dashboard a folder to be read from.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!(
        "cargo:rustc-env=HOLDFAST_COMMIT={}",
        commit().unwrap_or_else(|| "unknown".to_owned())
    );
    println!(
        "cargo:rustc-env=HOLDFAST_TARGET={}",
        std::env::var("TARGET").unwrap_or_default()
    );

    // The folder must exist for the dashboard to be embedded; a build without Node.js has an empty one,
    // and the HTTP door then says how to build it.
    let dist = Path::new("ui/dist");
    if let Err(e) = std::fs::create_dir_all(dist) {
        println!("cargo:warning=cannot create {}: {e}", dist.display());
    }
    println!("cargo:rerun-if-changed=ui/dist");
}

/// Short commit, `+` appended where tracked files differ from it; `None` outside a git checkout.
fn commit() -> Option<String> {
    // A release archive inside somebody else's checkout must not take that one's commit.
    if !Path::new(".git").exists() {
        return None;
    }
    for file in ["HEAD", "logs/HEAD", "index"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|out| out.is_empty());
    Some(if clean { commit } else { format!("{commit}+") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
