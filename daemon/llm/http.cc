#include "daemon/llm/http.hh"

#include "daemon/llm/limits.hh"

#include <curl/curl.h>
#include <sys/socket.h>

#include <charconv>

namespace torpor::llm {

namespace {

using Clock = std::chrono::steady_clock;

// One request, for curl's callbacks.
struct Exchange {
    const std::function<Result<void>(const HttpHead&)>& on_head;
    const std::function<Result<void>(std::string_view)>& on_bytes;
    CURL* easy = nullptr;
    bool has_head = false;
    std::optional<Error> error = {};
    Clock::time_point last_byte = Clock::now();

    Result<void> tell_head() {
        has_head = true;
        HttpHead head;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &head.status);
        const char* type = nullptr;
        if (curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type != nullptr) head.content_type = type;
        curl_off_t seconds = 0;
        if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0) head.retry_after = std::chrono::seconds(seconds);
        curl_header* exact = nullptr;  // Anthropic's and OpenAI's, in milliseconds
        if (curl_easy_header(easy, "retry-after-ms", 0, CURLH_HEADER, -1, &exact) == CURLHE_OK) {
            const std::string_view text = exact->value;
            int64_t number = 0;
            if (std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc{} && number > 0) head.retry_after = std::chrono::milliseconds(number);
        }
        return on_head(head);
    }
};

size_t take_bytes(char* data, size_t size, size_t count, void* user) {
    auto& exchange = *static_cast<Exchange*>(user);
    exchange.last_byte = Clock::now();
    Result<void> taken;
    if (!exchange.has_head) taken = exchange.tell_head();
    if (taken) taken = exchange.on_bytes({data, size * count});
    if (taken) return size * count;
    exchange.error = taken.error();
    return CURL_WRITEFUNC_ERROR;
}

std::string host_of(const HttpRequest& request) {
    if (!request.unix_socket.empty()) return request.unix_socket;
    const size_t begin = request.url.find("://");
    const size_t from = begin == std::string::npos ? 0 : begin + 3;
    return request.url.substr(from, request.url.find('/', from) - from);
}

Error error_of(CURLcode code, const HttpRequest& request, const char* words) {
    const std::string host = host_of(request);
    const std::string cause = words[0] != '\0' ? words : curl_easy_strerror(code);
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY: return {Kind::unavailable, fmt::format("there is no host {}; look at the connection to the network", host), cause};
        case CURLE_COULDNT_CONNECT: return {Kind::unavailable, fmt::format("{} takes no connection; is it running?", host), cause};
        case CURLE_OPERATION_TIMEDOUT: return {Kind::unavailable, fmt::format("no connection to {} came about within {} s", host, connect_time_max.count()), cause};
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SSL_CACERT_BADFILE: return {Kind::refused, fmt::format("{} cannot prove who it is, so the key was not sent", host), cause};
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL: return {Kind::invalid, fmt::format("{} is no address for a provider; it begins with https:// or http://", request.url), cause};
        case CURLE_SEND_ERROR:
        case CURLE_GOT_NOTHING: return {Kind::unavailable, fmt::format("{} closed the connection before it answered", host), cause};
        default: return {Kind::engine, fmt::format("the answer of {} broke off", host), cause};
    }
}

struct Easy {
    CURL* handle = curl_easy_init();
    curl_slist* headers = nullptr;
    char words[CURL_ERROR_SIZE] = {};
    Easy() = default;
    Easy(const Easy&) = delete;
    Easy& operator=(const Easy&) = delete;
    ~Easy() {
        curl_easy_cleanup(handle);
        curl_slist_free_all(headers);
    }
};

curl_socket_t open_socket(void*, curlsocktype, curl_sockaddr* address) {
    return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void prepare(Easy& easy, const HttpRequest& request, Exchange& exchange) {
    for (const std::string& header : request.headers) easy.headers = curl_slist_append(easy.headers, header.c_str());
    easy.headers = curl_slist_append(easy.headers, "Expect:");  // a round trip for nothing
    CURL* handle = easy.handle;
    curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
    if (!request.unix_socket.empty()) curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, request.unix_socket.c_str());
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::chrono::milliseconds(connect_time_max).count()));
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.data());
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, easy.headers);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &exchange);
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, easy.words);
    curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, open_socket);  // no child shall have it
    curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
    exchange.easy = handle;
}

}  // namespace

HttpClient::HttpClient() {
    static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
    static_cast<void>(once);
}

HttpClient::~HttpClient() {
    for (void* multi : idle_) curl_multi_cleanup(multi);
}

void* HttpClient::take() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return curl_multi_init();
    void* multi = idle_.back();
    idle_.pop_back();
    return multi;
}

void HttpClient::give(void* multi) {
    {
        std::lock_guard lock(mutex_);
        if (idle_.size() < idle_connections_max) return idle_.push_back(multi);
    }
    curl_multi_cleanup(multi);
}

Result<void> HttpClient::post(const HttpRequest& request, const std::function<Result<void>(const HttpHead&)>& on_head,
                              const std::function<Result<void>(std::string_view)>& on_bytes, std::stop_token stop) {
    Exchange exchange{on_head, on_bytes};
    Easy easy;
    CURLM* multi = take();
    if (easy.handle == nullptr || multi == nullptr) return fail(Kind::internal, "there is no memory for a connection");
    prepare(easy, request, exchange);
    curl_multi_add_handle(multi, easy.handle);
    Result<void> done;
    {
        std::stop_callback wake(stop, [multi] { curl_multi_wakeup(multi); });
        for (bool is_over = false; !is_over;) {
            int running = 0;
            curl_multi_perform(multi, &running);
            int left = 0;
            while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
                if (message->msg != CURLMSG_DONE) continue;
                is_over = true;
                if (exchange.error) {
                    done = Failure(*exchange.error);
                } else if (message->data.result != CURLE_OK) {
                    done = Failure(error_of(message->data.result, request, easy.words));
                } else if (!exchange.has_head) {
                    done = exchange.tell_head();  // an answer without a body
                }
            }
            if (is_over) break;
            const auto silent = Clock::now() - exchange.last_byte;
            const auto most = exchange.has_head ? std::chrono::milliseconds(stall_time_max) : std::chrono::milliseconds(first_byte_time_max);
            if (stop.stop_requested()) {
                done = fail(Kind::cancelled, "it was interrupted");
                break;
            }
            if (silent > most) {
                done = fail(Kind::timeout, "{} sent nothing for {} s", host_of(request), std::chrono::duration_cast<std::chrono::seconds>(most).count());
                break;
            }
            constexpr int look_ms = 1'000;  // at the deadlines
            curl_multi_poll(multi, nullptr, 0, look_ms, nullptr);
        }
    }
    curl_multi_remove_handle(multi, easy.handle);
    give(multi);
    return done;
}

}  // namespace torpor::llm
