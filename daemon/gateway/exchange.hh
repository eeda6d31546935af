// One request on its way to a worker, and its answer on the way back.
//
//     begin ── lease at once ──> sending ──> head ──> streaming ──> ended
//        └──── waiting ────────────^            └───> collecting ────^
//
// A worker that dies before its answer begins is replaced, and nobody notices. An event stream is passed on
// piece by piece, and while the client takes none no more is read; any other answer is collected first, so
// that one cut short becomes a clean error. What goes wrong after the client's head was sent is the stream's
// last event. When the client goes away the worker's connection is closed, which is what makes engines stop.
#pragma once

#include "base/http/server.hh"
#include "daemon/gateway/limits.hh"
#include "daemon/gateway/quota.hh"
#include "daemon/gateway/relay.hh"
#include "daemon/gateway/response_parser.hh"
#include "daemon/gateway/stream_tap.hh"
#include "daemon/gateway/wires.hh"
#include "gpu/pool.hh"
#include "gpu/prompt_keeper.hh"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace torpor::gateway {

// What the gateway made of a request.
struct Inquiry {
    std::unique_ptr<http::Detached> client;
    const WireRow* wire = nullptr;
    std::string path;
    std::string model;      // its own name, also where an alias was asked for, or the adapter's
    std::string principal;
    std::string head;       // to the worker, but for its key, the body's length and the blank line
    http::Body body;
    std::optional<gpu::Conversation> conversation;  // that it goes on with, where the state of prompts may be kept
    bool wants_stream = false;
    bool drops_usage = false;  // usage at the stream's end was our wish
    bool is_http_1_0 = false;  // knows no chunks
    std::optional<std::chrono::milliseconds> keep_alive;
    std::unique_ptr<Quotas::Permit> permit;  // null for the owner
};

// What came of it, for metrics and the request log.
struct Outcome {
    const WireRow* wire;
    const std::string& model;
    const std::string& principal;
    int status;                 // as the client saw it; 499 if it went away
    std::string_view failure;   // the kind of what went wrong, empty if nothing did
    std::string_view limit;     // that was hit, if one was
    bool streamed;
    gpu::Wake wake;
    Usage usage;
    double queue_ms, wake_ms, first_byte_ms, total_ms;
};
using OnOutcome = std::function<void(const Outcome&)>;

class Exchange {
  public:
    using Clock = std::chrono::steady_clock;

    // What all exchanges share; it outlives them.
    struct Shared {
        gpu::Pool& pool;
        Relay& relay;
        http::ByteBudget& answer_bytes;
        Limits limits;
        std::chrono::milliseconds client_stall;
        OnOutcome on_outcome;  // called on the relay's thread, or on that of begin()
    };

    Exchange(Shared& shared, Inquiry inquiry);
    ~Exchange();

    // Sends the request if a worker is ready. Before Relay::adopt(), on any thread.
    void begin();

    uint64_t id() const { return id_; }
    // Whether a worker has (part of) the request.
    bool is_under_way() const { return static_cast<bool>(worker_); }

    // For the relay, on its thread (start_watching: under its lock, on any).
    void start_watching();
    void go_on();
    void on_worker(uint32_t events);
    void on_client(uint32_t events);
    void on_tick(Clock::time_point now);
    void connect_again();

  private:
    enum class Stage { waiting, sending, head, streaming, collecting, ended };

    // To the worker.
    void ask_for_lease();
    void take_lease(Result<gpu::Lease> lease);
    void find_seat();
    std::string choice_of_slot() const;
    Result<void> connect();
    Result<bool> send_more();
    void after_sending(Result<bool> sent);
    void read_piece();
    void worker_failed(Error error, bool may_repeat = true);
    void let_worker_go(bool is_done);
    void watch_worker();

    // To the client.
    void begin_answer();
    std::optional<Error> wrong_type(bool is_stream) const;
    void pass_on();
    void finish_whole();
    void tell_waiting(Clock::time_point now);
    void fail(const Error& error);
    void begin_stream();
    void add_chunk(std::string_view bytes);
    void end_stream();
    std::string answer_head(int status, std::string_view type) const;
    void flush();
    void watch_client();
    void abandon(std::string_view failure, int status);
    void end();
    void report();

    Shared& shared_;
    Inquiry inquiry_;
    const uint64_t id_;
    Stage stage_ = Stage::waiting;
    bool is_adopted_ = false;

    std::optional<gpu::Lease> lease_;
    gpu::PromptSeatPtr seat_;     // among the worker's slots; goes before the lease
    bool awaits_seat_ = false;
    gpu::Pool::Ticket ticket_;
    uint64_t dead_generation_ = 0;
    int tries_ = 1;

    Fd worker_;
    bool worker_is_watched_ = false;
    bool was_kept_ = false;       // the connection served another request before
    bool was_replaced_ = false;   // such a one turned out to be dead
    std::string head_;            // to this worker, with what begins the body where that is not as it came
    size_t body_begin_ = 0;       // of the body as it came
    size_t sent_ = 0;             // of both
    bool is_sent_ = false;        // all of it
    ResponseParser parser_;
    std::string decoded_;

    bool stream_has_begun_ = false;
    bool must_close_ = false;     // the client's connection, after the answer
    StreamTap tap_;
    std::string whole_;           // an answer that is collected
    http::ByteShare whole_share_;
    std::string out_;             // for the client, not taken yet
    size_t out_start_ = 0;
    uint32_t client_events_ = 0;

    Clock::time_point began_ = Clock::now();
    Clock::time_point moved_ = began_;         // worker: last sign
    Clock::time_point client_moved_ = began_;  // client: last bytes taken
    Clock::time_point told_ = began_;
    Outcome outcome_;
    bool is_reported_ = false;
};

}  // namespace torpor::gateway
