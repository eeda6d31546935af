#include "base/text.hh"
#include "daemon/tools/cut.hh"
#include "daemon/tools/input.hh"
#include "daemon/tools/limits.hh"
#include "daemon/tools/place.hh"
#include "daemon/tools/table.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace torpor::tools {

namespace {

using agent::Mode;
using agent::ToolContext;
using agent::ToolResult;
using agent::ToolUse;
using simdjson::dom::object;

// What a file's first bytes say; empty for text.
std::string_view kind_of(std::string_view head) {
    struct Magic {
        std::string_view bytes, name;
    };
    using namespace std::string_view_literals;
    static constexpr std::array magics{
        Magic{"\x89PNG"sv, "a PNG image"}, Magic{"\xFF\xD8\xFF"sv, "a JPEG image"}, Magic{"GIF8"sv, "a GIF image"},
        Magic{"%PDF-"sv, "a PDF document"}, Magic{"\x7F" "ELF"sv, "a program or library (ELF)"},
        Magic{"PK\x03\x04"sv, "a zip archive (or an office document)"}, Magic{"\x1F\x8B"sv, "gzip-compressed"},
        Magic{"\x28\xB5\x2F\xFD"sv, "zstd-compressed"}, Magic{"\xFD" "7zXZ"sv, "xz-compressed"},
        Magic{"SQLite format 3"sv, "an SQLite database"}, Magic{"GGUF"sv, "a model's weights (GGUF)"}};
    for (const Magic& magic : magics) {
        if (head.starts_with(magic.bytes)) return magic.name;
    }
    return head.find('\0') == std::string_view::npos ? std::string_view() : "binary";
}

Result<ToolUse> look(const object& input, const ToolContext& context) {
    auto place = locate(text_of(input, "path"), context);
    if (!place) return Failure(place.error());
    ToolUse use;
    use.title = fmt::format("read {}", place->shown);
    use.subjects = {place->shown};
    use.needs = place->is_inside ? Mode::read_only : Mode::danger_full_access;
    use.leaves_folder = !place->is_inside;
    use.only_reads = true;
    return use;
}

// Takes lines from a file's bytes until it has enough of them.
class Lines {
  public:
    Lines(uint64_t offset, uint64_t limit) : offset_(offset), limit_(limit) {}

    // False once it needs no more.
    bool take(std::string_view bytes) {
        while (!bytes.empty()) {
            if (is_full_) {
                is_more_ = true;
                return false;
            }
            const size_t end = bytes.find('\n');
            const std::string_view piece = bytes.substr(0, end);
            if (number_ >= offset_) add(piece);
            if (end == std::string_view::npos) {
                has_rest_ = true;
                return true;
            }
            bytes.remove_prefix(end + 1);
            end_line();
        }
        return true;
    }

    std::string finish() {
        if (has_rest_) end_line();
        if (number_ == 0) return "(the file is empty)";
        if (taken_ == 0) return fmt::format("(the file has {} lines only; the first is at offset 0)", number_);
        if (is_more_) text_ += fmt::format("(there is more; read on with offset {})\n", number_);
        return std::move(text_);
    }
    bool is_more() const { return is_more_; }
    uint64_t taken() const { return taken_; }

  private:
    void add(std::string_view piece) {
        if (line_.size() <= read_line_bytes_max) line_ += piece.substr(0, read_line_bytes_max + 1);
        line_bytes_ += piece.size();
    }

    void end_line() {
        has_rest_ = false;
        const uint64_t number = number_++;
        if (number < offset_) return;
        if (line_.ends_with('\r')) line_.pop_back();
        text_ += fmt::format("{:>6}\t", number + 1);
        if (line_.size() > read_line_bytes_max) {
            line_.resize(whole_characters(std::string_view(line_).substr(0, read_line_bytes_max)));
            line_ += fmt::format(" [... of {} bytes]", line_bytes_);
        }
        text_ += line_ + '\n';
        line_.clear();
        line_bytes_ = 0;
        is_full_ = ++taken_ >= limit_ || text_.size() + read_line_bytes_max >= read_bytes_max;
    }

    const uint64_t offset_, limit_;
    uint64_t number_ = 0, taken_ = 0;
    std::string text_, line_;
    size_t line_bytes_ = 0;
    bool has_rest_ = false, is_full_ = false, is_more_ = false;
};

ToolResult failed(std::string text) {
    return {.output = std::move(text), .failed = true};
}

Result<ToolResult> run(const object& input, const ToolContext& context) {
    auto place = locate(text_of(input, "path"), context);
    if (!place) return failed(place.error().text());
    auto file = open_at(*place, context, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file) return failed(file.error().text());
    struct stat found{};
    if (::fstat(file->get(), &found) != 0) return failed(fmt::format("cannot look at {}", place->shown));
    if (S_ISDIR(found.st_mode)) return failed(fmt::format("{} is a folder; list it with bash (ls)", place->shown));
    if (!S_ISREG(found.st_mode)) return failed(fmt::format("{} is no plain file", place->shown));

    const uint64_t limit = std::min<uint64_t>(std::max<uint64_t>(1, number_of(input, "limit", read_lines_max)), read_lines_max);
    Lines lines(number_of(input, "offset", 0), limit);
    std::string buffer(64 * 1024, '\0');
    uint64_t bytes = 0;
    for (;;) {
        const ssize_t count = ::read(file->get(), buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return failed(fmt::format("cannot read {}: {}", place->shown, std::strerror(errno)));
        if (count == 0) break;
        const std::string_view piece(buffer.data(), static_cast<size_t>(count));
        if (bytes == 0) {
            if (const std::string_view kind = kind_of(piece.substr(0, 8192)); !kind.empty()) {
                return failed(fmt::format("{} is {} ({}), not text", place->shown, kind, format_bytes(static_cast<uint64_t>(found.st_size))));
            }
        }
        bytes += piece.size();
        if (!lines.take(piece)) break;
        if (context.stop.stop_requested()) return ToolResult{.output = "it was stopped", .failed = true, .is_cut_short = true};
        if (bytes > read_skip_bytes_max) {
            return failed(fmt::format("no line {} within the first {}; use bash (sed -n) for so large a file",
                                      number_of(input, "offset", 0), format_bytes(read_skip_bytes_max)));
        }
    }
    ToolResult result;
    result.output = lines.finish();
    result.detail = fmt::format(R"({{"lines":{},"more":{}}})", lines.taken(), lines.is_more());
    return result;
}

}  // namespace

const agent::Tool read_file{
    .name = "read_file",
    .description = "Reads a text file, with line numbers. At most 2,000 lines or 48 KiB at once: read on with offset.",
    .schema = R"({"type":"object","properties":{
"path":{"type":"string","minLength":1,"description":"relative to the working directory, or absolute"},
"offset":{"type":"integer","minimum":0,"description":"lines to skip"},
"limit":{"type":"integer","minimum":1,"description":"lines to read"}},
"required":["path"],"additionalProperties":false})",
    .level = Mode::read_only,
    .look = look,
    .run = run,
};

}  // namespace torpor::tools
