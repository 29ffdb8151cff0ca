//! The pages for operators are true to the files and to the commands.

use super::*;

const PAGES: [&str; 2] = ["docs/deployment.md", "docs/alerts.md"];

#[test]
fn files_that_are_named_are_there() {
    for page in PAGES {
        let text = read(page);
        let words = text.split(|c: char| !(c.is_alphanumeric() || "/._-@".contains(c)));
        for file in words.filter(|word| word.starts_with("deploy/")) {
            let file = file.trim_end_matches(['.', '-']);
            assert!(repository(file).exists(), "{page} names {file}");
        }
        for target in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                let path = Path::new("docs").join(file);
                assert!(
                    repository(path.to_str().unwrap()).exists(),
                    "{page} links to {target}"
                );
            }
        }
    }
    // And none is left out.
    let page = read("docs/deployment.md");
    for entry in std::fs::read_dir(repository("deploy")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            page.contains(&format!("deploy/{name}")),
            "docs/deployment.md does not name deploy/{name}"
        );
    }
}

/// The commands of our own in a page's blocks are known, with their flags.
#[test]
fn commands_that_are_shown_are_known() {
    let mut shown = 0;
    for page in PAGES {
        let text = read(page);
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with("```") {
                inside = !inside;
                continue;
            }
            let Some(command) = line.strip_prefix("mesh ").filter(|_| inside) else {
                continue;
            };
            let ends = [" #", " | ", " > "].iter().filter_map(|end| command.find(end));
            let command = &command[..ends.min().unwrap_or(command.len())];
            // What stands after -- is for `mesh serve`.
            let words: Vec<&str> = command.split_whitespace().collect();
            let own = words.split(|&word| word == "--").next().unwrap();
            let help = [own, &["--help"]].concat();
            let ran = Ran::of(mesh(&help));
            assert_eq!(ran.code, 0, "{page}: mesh {command}: {ran:?}");
            shown += 1;
        }
    }
    assert!(shown >= 5, "only {shown} commands");
}

#[test]
fn every_command_has_a_manual_page_and_the_shells_their_completions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("man1");
    Ran::of(mesh(&["man", "--dir", path.to_str().unwrap()])).says(0, "");
    let page = |name: &str| {
        std::fs::read_to_string(path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let first = page("mesh.1");
    // What the first page refers to is there.
    let named = first.lines().filter_map(|line| line.strip_suffix("(1)"));
    let mut pages = 0;
    for name in named {
        let name = name.replace("\\-", "-");
        assert!(
            page(&format!("{name}.1")).contains(concat!("mesh ", env!("CARGO_PKG_VERSION"))),
            "{name}"
        );
        pages += 1;
    }
    assert!(pages > 20, "{pages} pages");
    page("mesh-stream-add.1");
    for shell in ["bash", "zsh", "fish"] {
        Ran::of(mesh(&["completions", shell])).says(0, "service");
    }
    Ran::of(mesh(&["man", "nothing"])).says(2, "no command");
}
