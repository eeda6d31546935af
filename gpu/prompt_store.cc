#include "gpu/prompt_store.hh"

#include "base/fd.hh"
#include "base/log.hh"
#include "base/text.hh"
#include "gpu/image_check.hh"
#include "gpu/limits.hh"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <charconv>
#include <sstream>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

// The fingerprint's lines as they are, then those of the state itself, the blocks last.
std::string text_of(const PromptState& state) {
    std::string text = fmt::format("{}tokens {}\nstate {}\nblocks", state.fingerprint, state.tokens, state.checksum);
    for (const uint64_t block : state.conversation.blocks) text += fmt::format(" {:x}", block);
    return text + "\n";
}

std::optional<PromptState> parse(const std::string& text) {
    PromptState state;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("tokens ")) {
            std::from_chars(line.data() + 7, line.data() + line.size(), state.tokens);
        } else if (line.starts_with("state ")) {
            state.checksum = line.substr(6);
        } else if (line.starts_with("blocks ")) {
            for (const char *at = line.data() + 7, *end = line.data() + line.size(); at < end;) {
                const auto [after, code] = std::from_chars(at, end, state.conversation.blocks.emplace_back(), 16);
                if (code != std::errc{}) return {};
                at = after + 1;
            }
        } else {
            state.fingerprint += line + "\n";
        }
    }
    const size_t space = state.checksum.find(' ');
    if (space == std::string::npos || state.conversation.blocks.empty() || !text.ends_with('\n')) return {};
    std::from_chars(state.checksum.data() + space + 1, state.checksum.data() + state.checksum.size(), state.bytes);
    return state;
}

}  // namespace

void PromptStore::load() {
    std::error_code code;
    for (const auto& entry : fs::directory_iterator(folder_, code)) {
        if (entry.is_directory(code)) load_model(entry.path());
    }
}

void PromptStore::load_model(const fs::path& folder) {
    std::error_code code;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, code)) files.push_back(entry.path());
    std::map<std::string, PromptState> found;
    for (const fs::path& file : files) {
        if (file.extension() != ".record") continue;
        const auto text = read_file(file, prompt_record_bytes_max);
        auto state = text ? parse(*text) : std::nullopt;
        if (!state) continue;
        state->key = file.stem();
        state->used_at = fs::last_write_time(file, code);
        if (fs::file_size(folder / state->file(), code) == state->bytes && !code) found[state->key] = std::move(*state);
    }
    for (const fs::path& file : files) {
        if (!found.contains(file.stem())) fs::remove_all(file, code);
    }
    std::lock_guard lock(mutex_);
    states_[folder.filename()] = std::move(found);
}

std::string PromptStore::new_key(const Conversation& conversation) {
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    return fmt::format("{:016x}-{:x}", conversation.blocks.empty() ? 0 : conversation.blocks.back(), now);
}

std::optional<PromptStore::Match> PromptStore::best(const std::string& model, const Conversation& conversation) const {
    std::lock_guard lock(mutex_);
    const auto of_model = states_.find(model);
    if (of_model == states_.end()) return {};
    const PromptState* best = nullptr;
    size_t most = 0;
    for (const auto& [key, state] : of_model->second) {
        const size_t blocks = state.conversation.in_common(conversation);
        if (blocks > most || (blocks == most && best != nullptr && state.used_at > best->used_at)) {
            most = blocks;
            best = &state;
        }
    }
    if (best == nullptr) return {};
    return Match{*best, most};
}

Result<void> PromptStore::check_room(uint64_t bytes) const {
    if (bytes > bytes_max_) {
        return fail(Kind::too_large, "{} are more than [pool] prompt_state allows, {}", format_bytes(bytes), format_bytes(bytes_max_));
    }
    struct statvfs disk{};
    if (::statvfs(folder_.c_str(), &disk) != 0) return fail_errno(Kind::internal, "cannot ask the disk");
    const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize;
    if (free < bytes + prompt_disk_free_min) return fail(Kind::too_large, "the disk of {} has only {} left", folder_.string(), format_bytes(free));
    return {};
}

Result<void> PromptStore::keep(const std::string& model, PromptState state) {
    const fs::path folder = folder_of(model);
    const fs::path file = folder / state.file();
    ::chmod(file.c_str(), 0600);
    const auto checksum = checksum_of(file);
    const Place place{model, state.key};
    Result<void> kept = checksum ? Result<void>() : Failure(checksum.error());
    if (checksum) {
        const size_t bytes_at = checksum->find(' ') + 1;
        uint64_t written = 0;
        std::from_chars(checksum->data() + bytes_at, checksum->data() + checksum->size(), written);
        if (written != state.bytes) kept = fail(Kind::engine, "it was not written whole");
        if (written > bytes_max_) kept = check_room(written);
        state.checksum = *checksum;
    }
    if (kept) kept = write_file_atomically(folder / (state.key + ".record"), text_of(state), 0600);
    if (!kept) {
        remove_files(place);
        return kept;
    }
    state.used_at = fs::file_time_type::clock::now();
    for (const Place& superfluous : take_in(model, std::move(state))) remove_files(superfluous);
    return {};
}

uint64_t PromptStore::bytes_in_all() const {
    uint64_t sum = 0;
    for (const auto& [model, states] : states_) {
        for (const auto& [key, state] : states) sum += state.bytes;
    }
    return sum;
}

// The state is one of ours from here on; those that are no more come back.
std::vector<PromptStore::Place> PromptStore::take_in(const std::string& model, PromptState state) {
    std::vector<Place> gone;
    std::lock_guard lock(mutex_);
    auto& states = states_[model];
    std::erase_if(states, [&](const auto& entry) {
        const bool is_its_beginning = entry.second.conversation.in_common(state.conversation) == entry.second.conversation.blocks.size();
        if (is_its_beginning) gone.push_back({model, entry.first});
        return is_its_beginning;
    });
    const std::string key = state.key;
    states[key] = std::move(state);
    for (uint64_t sum = bytes_in_all(); sum > bytes_max_;) {
        std::map<std::string, PromptState>* oldest_of = nullptr;
        Place oldest;
        for (auto& [name, all] : states_) {
            for (const auto& [other, known] : all) {
                if (other == key && name == model) continue;
                if (oldest_of != nullptr && known.used_at >= oldest_of->at(oldest.key).used_at) continue;
                oldest_of = &all;
                oldest = {name, other};
            }
        }
        if (oldest_of == nullptr) break;
        sum -= oldest_of->at(oldest.key).bytes;
        oldest_of->erase(oldest.key);
        gone.push_back(oldest);
    }
    return gone;
}

std::optional<std::string> PromptStore::why_damaged(const std::string& model, const PromptState& state) const {
    const auto found = checksum_of(folder_of(model) / state.file());
    if (!found) return found.error().text();
    if (*found != state.checksum) return "it is not as it was written";
    return {};
}

void PromptStore::note_used(const std::string& model, const std::string& key) {
    const auto now = fs::file_time_type::clock::now();
    std::error_code code;
    fs::last_write_time(folder_of(model) / (key + ".record"), now, code);
    std::lock_guard lock(mutex_);
    const auto of_model = states_.find(model);
    if (of_model == states_.end()) return;
    if (const auto found = of_model->second.find(key); found != of_model->second.end()) found->second.used_at = now;
}

void PromptStore::remove_files(const Place& place) const {
    std::error_code code;
    // The record first: what is left of a removal that was cut short is an unfinished state.
    fs::remove(folder_of(place.model) / (place.key + ".record"), code);
    fs::remove(folder_of(place.model) / (place.key + ".state"), code);
}

void PromptStore::remove(const std::string& model, const std::string& key) {
    {
        std::lock_guard lock(mutex_);
        if (const auto of_model = states_.find(model); of_model != states_.end()) of_model->second.erase(key);
    }
    remove_files({model, key});
}

void PromptStore::remove_all(const std::string& model) {
    {
        std::lock_guard lock(mutex_);
        states_.erase(model);
    }
    std::error_code code;
    fs::remove_all(folder_of(model), code);
}

uint64_t PromptStore::bytes_of(const std::string& model) const {
    std::lock_guard lock(mutex_);
    uint64_t sum = 0;
    if (const auto of_model = states_.find(model); of_model != states_.end()) {
        for (const auto& [key, state] : of_model->second) sum += state.bytes;
    }
    return sum;
}

}  // namespace torpor::gpu
