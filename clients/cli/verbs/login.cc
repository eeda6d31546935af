// torpor login and logout: a provider's key, kept where only its owner can read it. It is never an argument, which all can see.
#include "base/fd.hh"
#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>

namespace torpor::cli {

namespace {

constexpr size_t key_bytes_max = 16 * 1024;

// From a terminal without showing it, or a line of a pipe.
Result<std::string> read_key(const std::string& provider) {
    const bool is_terminal = ::isatty(STDIN_FILENO) != 0;
    termios before{};
    if (is_terminal) {
        std::fputs(fmt::format("key for {} (it is not shown): ", provider).c_str(), stderr);
        ::tcgetattr(STDIN_FILENO, &before);
        termios silent = before;
        silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
        ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    std::string key;
    std::array<char, 512> piece;
    for (ssize_t count = 1; count > 0 && key.find('\n') == std::string::npos && key.size() < key_bytes_max;) {
        count = ::read(STDIN_FILENO, piece.data(), piece.size());
        if (count > 0) key.append(piece.data(), static_cast<size_t>(count));
    }
    if (is_terminal) {
        ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        std::fputc('\n', stderr);
    }
    key.resize(std::min(key.find('\n'), key.size()));
    while (!key.empty() && static_cast<unsigned char>(key.back()) <= ' ') key.pop_back();
    if (key.empty()) return fail(Kind::invalid, "no key was given; nothing is changed");
    return key;
}

Result<std::filesystem::path> place_of(Context& context, const std::string& provider) {
    auto listed = context.client.get("/api/providers");
    if (!listed) return Failure(listed.error());
    std::vector<std::string> names;
    for (const simdjson::dom::element one : Answer::list(listed->root(), "providers")) names.emplace_back(Answer::text(one, "name"));
    if (provider == "local" || std::ranges::find(names, provider) == names.end()) {
        return fail(Kind::not_found, "there is no provider {}{}; [provider.NAME] in config.toml adds one", provider, did_you_mean(provider, names));
    }
    return context.client.folders().config / "provider-keys" / provider;
}

}  // namespace

void add_login(CLI::App& app, Context& context) {
    static std::string provider;
    add_verb(app, context, "login", "give Torpor your key for a provider of models", "  torpor login anthropic\n  pass show openai | torpor login openai",
             [&context]() -> Result<void> {
                 auto place = place_of(context, provider);
                 if (!place) return Failure(place.error());
                 auto key = read_key(provider);
                 if (!key) return Failure(key.error());
                 if (auto made = make_private_folder(place->parent_path()); !made) return made;
                 if (auto written = write_file_atomically(*place, *key + "\n", 0600); !written) return written;
                 print_line(fmt::format("the key for {} is kept in {}", provider, place->string()));
                 return {};
             })
        ->add_option("PROVIDER", provider, "its name, like anthropic")
        ->required();
    add_verb(app, context, "logout", "forget the key for a provider", "",
             [&context]() -> Result<void> {
                 auto place = place_of(context, provider);
                 if (!place) return Failure(place.error());
                 std::error_code code;
                 if (!std::filesystem::remove(*place, code)) return fail(Kind::not_found, "there is no key for {}", provider);
                 print_line(fmt::format("the key for {} is forgotten", provider));
                 return {};
             })
        ->add_option("PROVIDER", provider, "its name")
        ->required();
}

}  // namespace torpor::cli
