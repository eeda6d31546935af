#include "store/session_row.hh"
#include "store/trust.hh"

#include <openssl/evp.h>

#include <array>

namespace torpor::store {

Result<std::string> hash_of(std::string_view bytes) {
    std::array<unsigned char, 32> hash{};
    unsigned size = 0;
    if (EVP_Digest(bytes.data(), bytes.size(), hash.data(), &size, EVP_sha256(), nullptr) != 1) {
        return fail(Kind::internal, "OpenSSL cannot compute SHA-256 here");
    }
    std::string text;
    for (const unsigned char byte : hash) text += fmt::format("{:02x}", byte);
    return text;
}

Result<std::string> put_content(Connection& db, std::string_view session, std::string_view bytes) {
    auto number = session_number(db, session);
    if (!number) return Failure(number.error());
    auto hash = hash_of(bytes);
    if (!hash) return hash;
    if (auto put = db.run("INSERT INTO content (hash, bytes) VALUES (?, ?) ON CONFLICT DO NOTHING", *hash, Blob{bytes}); !put) {
        return Failure(put.error());
    }
    if (auto used = db.run("INSERT INTO content_use (session, content) SELECT ?, number FROM content WHERE hash = ? ON CONFLICT DO NOTHING", *number, *hash);
        !used) {
        return Failure(used.error());
    }
    return hash;
}

Result<std::string> find_content(Connection& db, std::string_view session, std::string_view hash) {
    auto number = session_number(db, session);
    if (!number) return Failure(number.error());
    auto found = db.prepare("SELECT bytes FROM content JOIN content_use ON content = number WHERE hash = ? AND session = ?");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(hash, *number); !bound) return Failure(bound.error());
    auto row = found->step();
    if (!row) return Failure(row.error());
    if (!*row) return fail(Kind::not_found, "session {} has no content {}", session, hash);
    return found->blob(0);
}

Result<void> share_contents(Connection& db, std::string_view from, std::string_view to) {
    auto source = session_number(db, from);
    if (!source) return Failure(source.error());
    auto target = session_number(db, to);
    if (!target) return Failure(target.error());
    return db.run("INSERT INTO content_use (session, content) SELECT ?, content FROM content_use WHERE session = ? ON CONFLICT DO NOTHING", *target,
                  *source);
}

}  // namespace torpor::store
