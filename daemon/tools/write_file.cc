#include "base/json.hh"
#include "daemon/tools/diff.hh"
#include "daemon/tools/input.hh"
#include "daemon/tools/limits.hh"
#include "daemon/tools/place.hh"
#include "daemon/tools/table.hh"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

namespace torpor::tools {

namespace {

using agent::Mode;
using agent::ToolContext;
using agent::ToolResult;
using agent::ToolUse;
using simdjson::dom::object;

constexpr mode_t file_mode = 0644;

struct Old {
    mode_t mode = file_mode;
    std::optional<std::string> text;  // nothing: too long to compare, or not to be read
};

// What is there now; nothing if there is nothing. `invalid` for what is no plain file.
Result<std::optional<Old>> look_at_old(const Place& place, const ToolContext& context) {
    auto file = open_at(place, context, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file && file.error().kind == Kind::not_found) return std::optional<Old>();
    if (!file) return Failure(file.error());
    struct stat found{};
    if (::fstat(file->get(), &found) != 0) return fail_errno(Kind::invalid, fmt::format("cannot look at {}", place.shown));
    if (S_ISDIR(found.st_mode)) return fail(Kind::invalid, "{} is a folder", place.shown);
    if (!S_ISREG(found.st_mode)) return fail(Kind::invalid, "{} is no plain file", place.shown);
    Old old{.mode = found.st_mode & 07777, .text = {}};
    if (static_cast<uint64_t>(found.st_size) > diff_file_bytes_max) return std::optional(old);
    std::string text(static_cast<size_t>(found.st_size), '\0');
    const ssize_t count = ::pread(file->get(), text.data(), text.size(), 0);
    if (count < 0) return std::optional(old);
    text.resize(static_cast<size_t>(count));
    old.text = std::move(text);
    return std::optional(old);
}

Diff compare(const std::optional<Old>& old, const std::string& content, const Place& place) {
    if ((old && !old->text) || content.size() > diff_file_bytes_max) return {.added = lines_of(content), .removed = 0, .text = {}};
    return diff_of(old ? *old->text : "", content, place.shown);
}

Result<ToolUse> look(const object& input, const ToolContext& context) {
    auto place = locate(text_of(input, "path"), context);
    if (!place) return Failure(place.error());
    const std::string content = text_of(input, "content");
    if (content.size() > write_bytes_max) return fail(Kind::invalid, "'content' is longer than {} bytes; write it in parts", write_bytes_max);
    ToolContext looking = context;
    looking.may_leave_folder = true;  // people are shown what would change
    auto old = look_at_old(*place, looking);
    if (!old) return Failure(old.error());
    const size_t lines = lines_of(content);
    ToolUse use;
    use.title = fmt::format("{} {} ({} line{})", *old ? "overwrite" : "write", place->shown, lines, lines == 1 ? "" : "s");
    use.detail = compare(*old, content, *place).text;
    use.subjects = {place->shown};
    use.needs = place->is_inside ? Mode::workspace_write : Mode::danger_full_access;
    use.leaves_folder = !place->is_inside;
    use.asks_always = is_guarded(*place) || (!place->is_inside && context.mode != Mode::danger_full_access);
    return use;
}

std::string name_beside(const std::string& name) {
    uint64_t number = 0;
    static_cast<void>(::getrandom(&number, sizeof number, 0));
    return fmt::format(".{}.{:016x}.new", name.substr(0, 200), number);
}

// Written beside and renamed: whoever reads it finds the old or the new text, never half of it.
Result<void> replace(const Place& place, const ToolContext& context, const std::string& content, mode_t mode) {
    auto folder = open_parent(place, context);
    if (!folder) return Failure(folder.error());
    const std::string name = place.real.filename().string(), beside = name_beside(name);
    Fd file(::openat(folder->get(), beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) return fail_errno(Kind::invalid, fmt::format("cannot write into the folder of {}", place.shown));
    auto written = write_all(file.get(), content, 0);
    if (written && (::fchmod(file.get(), mode) != 0 || ::fsync(file.get()) != 0)) written = fail_errno(Kind::invalid, "cannot write it");
    if (written && ::renameat(folder->get(), beside.c_str(), folder->get(), name.c_str()) != 0) {
        written = fail_errno(Kind::invalid, fmt::format("cannot put {} in its place", place.shown));
    }
    if (!written) ::unlinkat(folder->get(), beside.c_str(), 0);
    return written;
}

ToolResult failed(const Error& error) {
    return {.output = error.text(), .failed = true};
}

Result<ToolResult> run(const object& input, const ToolContext& context) {
    auto place = locate(text_of(input, "path"), context);
    if (!place) return failed(place.error());
    const std::string content = text_of(input, "content");
    auto old = look_at_old(*place, context);
    if (!old) return failed(old.error());
    const Diff diff = compare(*old, content, *place);
    if (auto done = replace(*place, context, content, *old ? (*old)->mode : file_mode); !done) return failed(done.error());
    JsonWriter detail;
    detail.begin_object()
        .member("path", place->shown)
        .member("created", !old->has_value())
        .member("bytes", content.size())
        .member("added", diff.added)
        .member("removed", diff.removed)
        .member("diff", diff.text)
        .end_object();
    ToolResult result;
    result.output = *old ? fmt::format("{} is overwritten: {} lines (+{} -{})", place->shown, lines_of(content), diff.added, diff.removed)
                         : fmt::format("{} is written: {} lines", place->shown, lines_of(content));
    result.detail = detail.take();
    return result;
}

}  // namespace

const agent::Tool write_file{
    .name = "write_file",
    .description = "Writes a text file: makes it with its folders, or replaces all of it.",
    .schema = R"({"type":"object","properties":{
"path":{"type":"string","minLength":1,"description":"relative to the working directory, or absolute"},
"content":{"type":"string","description":"the whole text of the file"}},
"required":["path","content"],"additionalProperties":false})",
    .level = Mode::workspace_write,
    .look = look,
    .run = run,
};

}  // namespace torpor::tools
