// Whose turn it is: the pool's queue, and what one key may ask.
#include "daemon/gateway/quota.hh"
#include "gpu/fair_queue.hh"

#include <doctest/doctest.h>

using namespace torpor;

TEST_CASE("the queue serves its users in turn, and each in order") {
    gpu::FairQueue<int> queue;
    for (int i = 0; i < 500; ++i) queue.push("many", i);
    queue.push("few", 1000);
    CHECK(queue.size() == 501);
    CHECK(queue.pop() == 0);
    CHECK(queue.pop() == 1000);
    CHECK(queue.pop() == 1);
    CHECK(queue.erase("many", 3));
    CHECK(!queue.erase("many", 3));
    CHECK(!queue.erase("few", 1000));
    CHECK(queue.pop() == 2);
    CHECK(queue.pop() == 4);
    while (!queue.empty()) queue.pop();
    queue.push("few", 1);
    CHECK(queue.erase("few", 1));
    CHECK(queue.empty());
    queue.push("many", 7);  // after erase nobody has a turn without an entry
    CHECK(queue.pop() == 7);
}

TEST_CASE("a key may ask so often a minute, and gets back what time refills") {
    gateway::Quotas quotas(100);
    const store::KeyLimits limits{.requests_per_minute = 2, .concurrent = 0, .models = {}};
    auto now = gateway::Quotas::Clock::now();
    auto first = quotas.admit("k", limits, now);
    REQUIRE(first);
    CHECK((*first)->headers.find("x-ratelimit-remaining-requests: 1\r\n") != std::string::npos);
    REQUIRE(quotas.admit("k", limits, now));
    const auto refused = quotas.admit("k", limits, now);
    REQUIRE(!refused);
    CHECK(refused.error().kind == Kind::busy);
    CHECK(refused.error().limit == "requests_per_minute");
    CHECK(refused.error().retry_after_s == 30);
    CHECK(quotas.admit("other", limits, now));
    CHECK(quotas.admit("k", limits, now + std::chrono::seconds(31)));
}

TEST_CASE("a key may have so many requests under way, and one that ends makes room") {
    gateway::Quotas quotas(1);
    auto one = quotas.admit("k", {});
    REQUIRE(one);
    CHECK(quotas.admit("k", {}).error().limit == "requests_per_key");
    const store::KeyLimits two{.requests_per_minute = 0, .concurrent = 2, .models = {}};
    CHECK(quotas.admit("k", two));
    one->reset();
    CHECK(quotas.admit("k", {}));
}
