// States of prompts on disk: what engines have made of conversations, so that they need not be read again.
//
//     prompts/NAME/              0700
//         KEY.state              what the engine wrote
//         KEY.record             text: fingerprint of the process that made it, checksum, the conversation's hashes
//
// A state without a record is one that was not finished. A record is written last, renamed into place.
#pragma once

#include "base/error.hh"
#include "gpu/conversation.hh"

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace torpor::gpu {

struct PromptState {
    std::string key;
    Conversation conversation;
    uint64_t tokens = 0;
    uint64_t bytes = 0;
    std::string fingerprint;  // as take_fingerprint() has it, and "environment HASH"
    std::string checksum;     // checksum_of()
    std::filesystem::file_time_type used_at{};

    std::string file() const { return key + ".state"; }
};

// Any thread. What touches files may wait for the disk, and says so.
class PromptStore {
  public:
    // `bytes_max`: over all models.
    PromptStore(std::filesystem::path folder, uint64_t bytes_max) : folder_(std::move(folder)), bytes_max_(bytes_max) {}

    // Takes up what is there and removes what was not finished. Reads every record.
    void load();

    // Where an engine writes this model's.
    std::filesystem::path folder_of(const std::string& model) const { return folder_ / model; }
    // A key that no state has.
    static std::string new_key(const Conversation& conversation);

    // The state that begins most like this, if any.
    struct Match {
        PromptState state;
        size_t blocks = 0;  // in common
    };
    std::optional<Match> best(const std::string& model, const Conversation& conversation) const;

    // Whether another state of so many bytes may be written. Asks the disk.
    Result<void> check_room(uint64_t bytes) const;
    // Takes a file that an engine has written whole: its checksum, its record. What it makes superfluous is removed (states
    // of the beginnings of the same conversation), and what was not used for longest where all are over the budget. An error
    // leaves nothing of it. Reads the file, writes, removes.
    Result<void> keep(const std::string& model, PromptState state);
    // What a read of the whole file found wrong with it; nothing if all is well.
    std::optional<std::string> why_damaged(const std::string& model, const PromptState& state) const;

    void note_used(const std::string& model, const std::string& key);
    void remove(const std::string& model, const std::string& key);
    void remove_all(const std::string& model);
    uint64_t bytes_of(const std::string& model) const;

  private:
    struct Place {
        std::string model, key;
    };
    void load_model(const std::filesystem::path& folder);
    void remove_files(const Place& place) const;
    uint64_t bytes_in_all() const;                                   // mutex_ held
    std::vector<Place> take_in(const std::string& model, PromptState state);

    const std::filesystem::path folder_;
    const uint64_t bytes_max_;
    mutable std::mutex mutex_;
    std::map<std::string, std::map<std::string, PromptState>> states_;  // guarded by mutex_; by model, by key
};

}  // namespace torpor::gpu
