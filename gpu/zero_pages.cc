// An engine clears the memory for its context before it serves, so most of its pages are zero and yet present: two
// thirds of the image of a small llama-server, most of a large context's. A page of private anonymous memory that is
// not in the image reads as zero after the restore, too, and costs neither disk nor time nor, until it is written
// to, memory.
//
// The format (criu.org/Images, images/*.proto): two magic numbers, then messages, each after its length. pagemap-PID
// lists runs of pages, first naming the file pages-ID that has their bytes in the same order; mm-PID says what kind
// of memory lies where.
#include "gpu/zero_pages.hh"

#include "base/fd.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

constexpr uint32_t common_magic = 0x54564319, pagemap_magic = 0x56084025, mm_magic = 0x57492820;
constexpr size_t list_bytes_max = 64 * 1024 * 1024;  // of a page list: a terabyte in runs of a megabyte
constexpr uint64_t page_bytes = 4096;
constexpr uint64_t batch_pages = 256;
constexpr uint64_t zero_run_pages_min = 8;           // shorter ones cost more as a run of their own than as bytes
constexpr uint64_t flag_lazy = 2, flag_present = 4;  // of a run; any other and we keep out

// A message's fields, as far as they are numbers; texts are kept as what they hold.
struct Field {
    uint64_t number = 0;
    std::string_view text;
};
using Message = std::vector<std::pair<uint64_t, Field>>;

std::optional<uint64_t> take_number(std::string_view& bytes) {
    uint64_t number = 0;
    for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
        const auto byte = static_cast<unsigned char>(bytes.front());
        bytes.remove_prefix(1);
        number |= static_cast<uint64_t>(byte & 0x7f) << shift;
        if (byte < 0x80) return number;
    }
    return {};
}

std::optional<Message> parse(std::string_view bytes) {
    Message message;
    while (!bytes.empty()) {
        const auto key = take_number(bytes);
        const auto value = key && (*key & 7) != 1 && (*key & 7) != 5 ? take_number(bytes) : std::nullopt;
        if (!value) return {};  // fixed-width fields occur in neither kind of message
        Field field{*value, {}};
        if ((*key & 7) == 2) {
            if (*value > bytes.size()) return {};
            field.text = bytes.substr(0, *value);
            bytes.remove_prefix(*value);
        } else if ((*key & 7) != 0) {
            return {};
        }
        message.emplace_back(*key >> 3, field);
    }
    return message;
}

std::optional<uint64_t> number_of(const Message& message, uint64_t key) {
    for (const auto& [known, field] : message) {
        if (known == key) return field.number;
    }
    return {};
}

// The messages of a file with this magic number.
std::optional<std::vector<Message>> messages_of(std::string_view file, uint32_t magic) {
    const auto word = [&] {
        uint32_t number = 0;
        std::memcpy(&number, file.data(), sizeof number);
        file.remove_prefix(sizeof number);
        return number;
    };
    if (file.size() < 8 || word() != common_magic || word() != magic) return {};
    std::vector<Message> messages;
    while (file.size() >= 4) {
        const uint32_t size = word();
        auto message = size <= file.size() ? parse(file.substr(0, size)) : std::nullopt;
        if (!message) return {};
        messages.push_back(std::move(*message));
        file.remove_prefix(size);
    }
    if (!file.empty()) return {};
    return messages;
}

struct Range {
    uint64_t begin = 0, end = 0;
};

// Where private anonymous memory lies, in order. Only there an absent page reads as zero.
std::optional<std::vector<Range>> anonymous_memory(std::string_view mm_file) {
    constexpr uint64_t key_area = 14, key_begin = 1, key_end = 2, key_flags = 6, key_status = 7;
    constexpr uint64_t private_anonymous = 0x22, no_reserve = 0x4000;          // MAP_*
    constexpr uint64_t regular_anonymous = 1 | (1 << 9), is_heap = 1 << 5;     // CRIU's own
    const auto messages = messages_of(mm_file, mm_magic);
    if (!messages || messages->size() != 1) return {};
    std::vector<Range> ranges;
    for (const auto& [key, field] : messages->front()) {
        if (key != key_area) continue;
        const auto area = parse(field.text);
        if (!area) return {};
        const auto begin = number_of(*area, key_begin), end = number_of(*area, key_end);
        const auto flags = number_of(*area, key_flags), status = number_of(*area, key_status);
        if (!begin || !end || !flags || !status) return {};
        const bool fits = (*flags & ~no_reserve) == private_anonymous && (*status & ~is_heap) == regular_anonymous;
        if (fits) ranges.push_back({*begin, *end});
    }
    std::ranges::sort(ranges, {}, &Range::begin);
    return ranges;
}

// One run of pages in a page list.
struct Run {
    uint64_t address = 0, pages = 0, flags = 0;
};

constexpr uint64_t key_address = 1, key_pages_before = 2, key_in_parent = 3, key_flags = 4, key_pages = 5;

struct PageList {
    uint64_t pages_id = 0;
    std::vector<Run> runs;
    uint64_t pages = 0;
};

std::optional<PageList> parse_list(std::string_view file) {
    const auto messages = messages_of(file, pagemap_magic);
    if (!messages || messages->empty()) return {};
    const auto id = number_of(messages->front(), key_address);
    if (!id || messages->front().size() != 1) return {};
    PageList list{*id, {}, 0};
    for (size_t i = 1; i < messages->size(); ++i) {
        const Message& message = (*messages)[i];
        const auto address = number_of(message, key_address), flags = number_of(message, key_flags), pages = number_of(message, key_pages);
        const bool is_known = address && flags && pages && (*flags & ~flag_lazy) == flag_present &&
                              number_of(message, key_pages_before).value_or(0) == 0 &&
                              number_of(message, key_in_parent).value_or(0) == 0;
        if (!is_known) return {};
        list.runs.push_back({*address, *pages, *flags});
        list.pages += *pages;
    }
    return list;
}

void put_number(std::string& out, uint64_t number) {
    for (; number >= 0x80; number >>= 7) out += static_cast<char>(number | 0x80);
    out += static_cast<char>(number);
}

void put_message(std::string& out, std::initializer_list<std::pair<uint64_t, uint64_t>> fields) {
    std::string message;
    for (const auto& [key, number] : fields) {
        put_number(message, key << 3);
        put_number(message, number);
    }
    const auto size = static_cast<uint32_t>(message.size());
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    out += message;
}

std::string list_text(const PageList& list) {
    std::string text;
    for (const uint32_t magic : {common_magic, pagemap_magic}) text.append(reinterpret_cast<const char*>(&magic), sizeof magic);
    put_message(text, {{key_address, list.pages_id}});
    for (const Run& run : list.runs) {
        put_message(text, {{key_address, run.address}, {key_pages_before, 0}, {key_flags, run.flags}, {key_pages, run.pages}});
    }
    return text;
}

bool is_zero(const char* page) {
    return page[0] == 0 && std::memcmp(page, page + 1, page_bytes - 1) == 0;
}

// Reads the pages in order and writes those that stay over the ones that went.
class Packer {
  public:
    Packer(int file, const std::vector<Range>& anonymous) : file_(file), anonymous_(anonymous), buffer_(batch_pages * page_bytes) {}

    Result<void> take(const Run& run) {
        for (uint64_t done = 0; done < run.pages;) {
            const uint64_t count = std::min(batch_pages, run.pages - done);
            const size_t bytes = count * page_bytes;
            if (::pread(file_, buffer_.data(), bytes, static_cast<off_t>(read_at_)) != static_cast<ssize_t>(bytes)) {
                return fail_errno(Kind::internal, "the image's pages cannot be read");
            }
            read_at_ += bytes;
            if (auto kept = keep({run.address + done * page_bytes, count, run.flags}); !kept) return kept;
            done += count;
        }
        return {};
    }

    std::vector<Run> runs;
    uint64_t kept_bytes() const { return write_at_; }

  private:
    // What of this batch, now in the buffer, stays.
    Result<void> keep(const Run& batch) {
        uint64_t begin = 0;  // of what stays and is not written yet
        for (uint64_t page = 0; page < batch.pages;) {
            uint64_t end = page;
            while (end < batch.pages && may_drop(batch.address + end * page_bytes) && is_zero(&buffer_[end * page_bytes])) ++end;
            if (end - page >= zero_run_pages_min) {
                if (auto written = write(batch, begin, page); !written) return written;
                begin = end;
            }
            page = std::max(end, page + 1);
        }
        return write(batch, begin, batch.pages);
    }

    Result<void> write(const Run& batch, uint64_t begin, uint64_t end) {
        if (begin == end) return {};
        const size_t bytes = (end - begin) * page_bytes;
        const uint64_t address = batch.address + begin * page_bytes;
        if (::pwrite(file_, &buffer_[begin * page_bytes], bytes, static_cast<off_t>(write_at_)) != static_cast<ssize_t>(bytes)) {
            return fail_errno(Kind::internal, "the image's pages cannot be written");
        }
        write_at_ += bytes;
        const bool goes_on = !runs.empty() && runs.back().flags == batch.flags &&
                             runs.back().address + runs.back().pages * page_bytes == address;
        if (goes_on) {
            runs.back().pages += end - begin;
        } else {
            runs.push_back({address, end - begin, batch.flags});
        }
        return {};
    }

    bool may_drop(uint64_t address) const {
        auto after = std::ranges::upper_bound(anonymous_, address, {}, &Range::begin);
        return after != anonymous_.begin() && address < std::prev(after)->end;
    }

    int file_;
    const std::vector<Range>& anonymous_;
    std::vector<char> buffer_;
    uint64_t read_at_ = 0, write_at_ = 0;
};

// One process of the image.
Result<uint64_t> pack(const fs::path& list_path, PageList list, const std::vector<Range>& anonymous) {
    const fs::path pages_path = list_path.parent_path() / fmt::format("pages-{}.img", list.pages_id);
    const Fd pages(::open(pages_path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    struct stat info{};
    if (!pages || ::fstat(pages.get(), &info) != 0) return fail_errno(Kind::internal, pages_path.string() + " cannot be opened");
    const uint64_t bytes = list.pages * page_bytes;
    if (static_cast<uint64_t>(info.st_size) != bytes) return 0;
    Packer packer(pages.get(), anonymous);
    for (const Run& run : list.runs) {
        if (auto taken = packer.take(run); !taken) return Failure(taken.error());
    }
    if (packer.kept_bytes() == bytes) return 0;
    if (::ftruncate(pages.get(), static_cast<off_t>(packer.kept_bytes())) != 0) {
        return fail_errno(Kind::internal, pages_path.string() + " cannot be cut");
    }
    list.runs = std::move(packer.runs);
    if (auto written = write_file_atomically(list_path, list_text(list), 0600); !written) return Failure(written.error());
    return bytes - packer.kept_bytes();
}

}  // namespace

Result<uint64_t> drop_zero_pages(const fs::path& image) {
    struct Process {
        fs::path list_path;
        PageList list;
        std::vector<Range> anonymous;
    };
    std::vector<Process> processes;
    std::set<uint64_t> ids;
    std::error_code code;
    for (const auto& entry : fs::directory_iterator(image, code)) {
        const std::string name = entry.path().filename();
        constexpr std::string_view prefix = "pagemap-";
        if (!name.starts_with(prefix)) continue;
        auto text = read_file(entry.path(), list_bytes_max);
        auto list = text ? parse_list(*text) : std::nullopt;
        if (!list || !ids.insert(list->pages_id).second) return 0;
        const std::string pid = name.substr(prefix.size());
        if (!std::isdigit(static_cast<unsigned char>(pid[0]))) continue;  // shared memory: left alone
        auto mm = read_file(image / ("mm-" + pid), list_bytes_max);
        auto anonymous = mm ? anonymous_memory(*mm) : std::nullopt;
        if (!anonymous) return 0;
        processes.push_back({entry.path(), std::move(*list), std::move(*anonymous)});
    }
    uint64_t saved = 0;
    for (Process& process : processes) {
        auto packed = pack(process.list_path, std::move(process.list), process.anonymous);
        if (!packed) return packed;
        saved += *packed;
    }
    return saved;
}

}  // namespace torpor::gpu
