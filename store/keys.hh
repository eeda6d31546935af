// The keys of the daemon's TCP side: random, kept only as a hash, checked without touching the database.
#pragma once

#include "base/error.hh"
#include "base/scope.hh"
#include "store/store.hh"

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::store {

// What one key may do beside its scope. 0 or empty: no limit of its own.
struct KeyLimits {
    uint32_t requests_per_minute = 0;
    uint32_t concurrent = 0;
    std::vector<std::string> models;  // own names; empty: all
};

struct Key {
    int64_t id = 0;
    std::string name;
    Scope scope = Scope::models;
    std::string prefix;  // the key's first characters, to tell it from others in a listing
    int64_t created_at_ms = 0;
    int64_t last_used_at_ms = 0;  // to the minute; 0: never
    std::shared_ptr<const KeyLimits> limits = std::make_shared<KeyLimits>();  // never null
};

struct NewKey {
    Key key;
    std::string plaintext;  // "tp-" and 43 characters; kept nowhere, so show it now
};

// All functions may be called from any thread; create() and remove() block on the disk.
class Keys {
    struct Passkey {};

  public:
    using Clock = std::function<int64_t()>;  // milliseconds since 1970

    // Loads all keys. The store must outlive this.
    static Result<std::unique_ptr<Keys>> open(Store& store, Clock clock = now_ms);

    Keys(Passkey, Store& store, Clock clock) : store_(store), clock_(std::move(clock)) {}

    // Errors: `invalid` for a bad name or a scope that no key can have, `conflict` if the name is taken,
    // `too_large` if there are keys_max.
    Result<NewKey> create(std::string_view name, Scope scope, KeyLimits limits = {});

    // `not_found`, with the nearest name, if there is none. Once it returned the key opens nothing.
    Result<void> remove(std::string_view name);

    // By age.
    std::vector<Key> list() const;

    // The key whose plaintext this is, else `unauthorized`. Takes about a microsecond and never waits for the
    // disk; notes the use at most once in key_touch_gap.
    Result<Key> find(std::string_view plaintext);

  private:
    using Hash = std::array<unsigned char, 32>;  // SHA-256

    struct Entry {
        Key key;  // last_used_at_ms is in the atomic
        Hash hash{};
        std::atomic<int64_t> last_used_at_ms{0};
    };

    static Result<Hash> hash_of(std::string_view plaintext);
    static Result<std::unique_ptr<Entry>> entry_from(const Statement& row);
    static Key key_of(const Entry& entry);
    Result<void> check_new(std::string_view name, Scope scope) const;
    void touch(Entry& entry);

    Store& store_;
    const Clock clock_;

    std::mutex change_;  // held through a create or remove, so that table and database change alike
    mutable std::shared_mutex mutex_;
    std::vector<std::unique_ptr<Entry>> entries_;  // guarded by mutex_
};

}  // namespace torpor::store
