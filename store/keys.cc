#include "store/keys.hh"

#include "base/log.hh"
#include "base/text.hh"
#include "store/limits.hh"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>

namespace torpor::store {

namespace {

constexpr std::string_view key_start = "tp-";

std::string base64url(const unsigned char* bytes, size_t count) {
    constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::string text;
    unsigned bits = 0;
    int held = 0;
    for (size_t i = 0; i < count; ++i) {
        bits = (bits << 8) | bytes[i];
        for (held += 8; held >= 6; held -= 6) text += alphabet[(bits >> (held - 6)) & 63];
    }
    if (held > 0) text += alphabet[(bits << (6 - held)) & 63];
    return text;
}

Result<std::string> make_plaintext() {
    std::array<unsigned char, key_random_bytes> random;
    for (;;) {
        // Up to 256 bytes come whole or not at all.
        const ssize_t count = ::getrandom(random.data(), random.size(), 0);
        if (count == static_cast<ssize_t>(random.size())) break;
        if (count < 0 && errno != EINTR) return fail_errno(Kind::internal, "the system gives no random numbers");
    }
    std::string text = std::string(key_start) + base64url(random.data(), random.size());
    OPENSSL_cleanse(random.data(), random.size());
    return text;
}

// "a,b" as a list; names hold no comma.
std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        parts.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return parts;
}

}  // namespace

// No salt and no slow hash: what is hashed are 256 random bits, which nobody can try out.
Result<Keys::Hash> Keys::hash_of(std::string_view plaintext) {
    Hash hash;
    unsigned size = 0;
    if (EVP_Digest(plaintext.data(), plaintext.size(), hash.data(), &size, EVP_sha256(), nullptr) != 1 ||
        size != hash.size()) {
        return fail(Kind::internal, "OpenSSL cannot compute SHA-256 here");
    }
    return hash;
}

Key Keys::key_of(const Entry& entry) {
    Key key = entry.key;
    key.last_used_at_ms = entry.last_used_at_ms.load();
    return key;
}

Result<std::unique_ptr<Keys::Entry>> Keys::entry_from(const Statement& row) {
    auto entry = std::make_unique<Entry>();
    KeyLimits limits;
    limits.requests_per_minute = static_cast<uint32_t>(row.integer(7));
    limits.concurrent = static_cast<uint32_t>(row.integer(8));
    limits.models = split(row.text(9));
    entry->key = {row.integer(0), row.text(1), Scope::models, row.text(3), row.integer(5), 0,
                  std::make_shared<KeyLimits>(std::move(limits))};
    entry->last_used_at_ms = row.integer(6);
    auto scope = parse_scope(row.text(2));
    if (!scope) return Failure(scope.error());
    entry->key.scope = *scope;
    const std::string hash = row.blob(4);
    if (hash.size() != entry->hash.size()) return fail(Kind::internal, "its hash is damaged");
    std::copy(hash.begin(), hash.end(), entry->hash.begin());
    return entry;
}

Result<std::unique_ptr<Keys>> Keys::open(Store& store, Clock clock) {
    auto keys = std::make_unique<Keys>(Passkey{}, store, std::move(clock));
    auto loaded = store.read([&](Connection& connection) -> Result<void> {
        auto rows = connection.prepare(
            "SELECT id, name, scope, prefix, hash, created_at_ms, last_used_at_ms, requests_per_minute, concurrent, models "
            "FROM key ORDER BY id");
        if (!rows) return Failure(rows.error());
        for (;;) {
            auto row = rows->step();
            if (!row) return Failure(row.error());
            if (!*row) return {};
            auto entry = entry_from(*rows);
            // One bad row closes one door, not the whole house.
            if (!entry) {
                log::warning("key \"{}\" opens nothing: {}", rows->text(1), entry.error().text());
                continue;
            }
            keys->entries_.push_back(std::move(*entry));
        }
    });
    if (!loaded) return Failure(loaded.error());
    return keys;
}

Result<void> Keys::check_new(std::string_view name, Scope scope) const {
    if (!is_plain_name(name)) {
        return fail(Kind::invalid, "a key's name is 1 to 64 letters, digits or . _ : - and starts with no dot or dash");
    }
    if (auto usable = parse_scope(name_of(scope)); !usable) return Failure(usable.error());
    const std::shared_lock lock(mutex_);
    if (entries_.size() >= keys_max) return fail(Kind::too_large, "there are {} keys already; remove one", keys_max);
    for (const auto& entry : entries_) {
        if (entry->key.name == name) {
            return fail(Kind::conflict, "there is a key \"{}\" already; remove it first, or choose another name", name);
        }
    }
    return {};
}

Result<NewKey> Keys::create(std::string_view name, Scope scope, KeyLimits limits) {
    const std::lock_guard changing(change_);
    if (auto may = check_new(name, scope); !may) return Failure(may.error());
    auto plaintext = make_plaintext();
    if (!plaintext) return Failure(plaintext.error());
    auto hash = hash_of(*plaintext);
    if (!hash) return Failure(hash.error());

    auto entry = std::make_unique<Entry>();
    entry->key = {0, std::string(name), scope, plaintext->substr(0, key_prefix_bytes), clock_(), 0,
                  std::make_shared<KeyLimits>(std::move(limits))};
    entry->hash = *hash;
    Key& key = entry->key;
    auto written = store_.write([&](Connection& connection) -> Result<void> {
        const std::string_view bytes(reinterpret_cast<const char*>(hash->data()), hash->size());
        auto inserted =
            connection.run("INSERT INTO key (name, scope, prefix, hash, created_at_ms, requests_per_minute, concurrent, models) "
                           "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                           key.name, name_of(scope), key.prefix, Blob{bytes}, key.created_at_ms, key.limits->requests_per_minute,
                           key.limits->concurrent, fmt::format("{}", fmt::join(key.limits->models, ",")));
        if (inserted) key.id = connection.last_insert_id();
        return inserted;
    });
    if (!written) return Failure(written.error());

    NewKey made{key, std::move(*plaintext)};
    const std::lock_guard lock(mutex_);
    entries_.push_back(std::move(entry));
    return made;
}

Result<void> Keys::remove(std::string_view name) {
    const std::lock_guard changing(change_);
    std::vector<std::string> names;
    for (const Key& key : list()) names.push_back(key.name);
    if (std::find(names.begin(), names.end(), name) == names.end()) {
        return fail(Kind::not_found, "there is no key \"{}\"{}", name, did_you_mean(name, names));
    }
    auto written = store_.write(
        [&](Connection& connection) { return connection.run("DELETE FROM key WHERE name = ?", name); });
    if (!written) return written;
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&](const auto& entry) { return entry->key.name == name; });
    return {};
}

std::vector<Key> Keys::list() const {
    const std::shared_lock lock(mutex_);
    std::vector<Key> keys;
    keys.reserve(entries_.size());
    for (const auto& entry : entries_) keys.push_back(key_of(*entry));
    return keys;
}

Result<Key> Keys::find(std::string_view plaintext) {
    auto hash = hash_of(plaintext);
    if (!hash) return Failure(hash.error());
    const std::shared_lock lock(mutex_);
    // All are compared, found or not, so that time tells nothing of which one or how much of it is right.
    Entry* found = nullptr;
    for (const auto& entry : entries_) {
        if (CRYPTO_memcmp(entry->hash.data(), hash->data(), hash->size()) == 0) found = entry.get();
    }
    if (!found) return fail(Kind::unauthorized, "this key is not one of ours; make one with: torpor key add NAME");
    touch(*found);
    return key_of(*found);
}

void Keys::touch(Entry& entry) {
    const int64_t now = clock_();
    int64_t last = entry.last_used_at_ms.load();
    const bool is_recent = last <= now && now - last < key_touch_gap.count();
    // Of many requests at once, the one that moves the time posts.
    if (is_recent || !entry.last_used_at_ms.compare_exchange_strong(last, now)) return;
    store_.post([now, id = entry.key.id](Connection& connection) {
        return connection.run("UPDATE key SET last_used_at_ms = ? WHERE id = ?", now, id);
    });
}

}  // namespace torpor::store
