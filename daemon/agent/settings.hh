// settings.toml: what people allow and forbid beforehand. The user's own lies beside config.toml; a project's are .torpor/settings.toml
// and .torpor/settings.local.toml in the session's folder, or the nearest one above it up to the root of its git repository.
//
//     [permissions]
//     allow = ["bash(make:*)", "WebFetch(domain:docs.python.org)"]
//     ask = ["bash(git push:*)"]
//     deny = ["read_file(secrets/:*)"]
//
// A project's file comes from whoever wrote the project. What tightens counts at once; what loosens (allow) counts once
// the folder is trusted, with exactly these files: their hash is kept (store/trust.hh). Files are read anew for each call, so what
// people change counts from the next one on.
#pragma once

#include "base/error.hh"
#include "store/sessions.hh"

#include <filesystem>
#include <string>
#include <vector>

namespace torpor::store {
class Store;
}

namespace torpor::agent {

struct SettingsFile {
    std::filesystem::path path;
    std::string text;
};

struct Settings {
    std::vector<store::Grant> rules;       // those that count; `by` is their file
    std::vector<store::Grant> untrusted;   // those that would, were the folder trusted
    std::vector<std::string> problems;     // of files, with their lines: unknown keys, rules that are none
    bool is_broken = false;                // a file could not be understood: what it forbids is not known
    std::filesystem::path project;         // the folder whose .torpor has settings, without links; empty: there are none
    std::vector<SettingsFile> files;       // of that
    std::string hash;                      // over those
    bool is_trusted = false;
};

// Any thread. `config`: the user's folder of configuration. Errors are the store's: a file that is missing or wrong is told in the result.
Result<Settings> read_settings(const std::filesystem::path& folder, const std::filesystem::path& config, store::Store& store);

}  // namespace torpor::agent
