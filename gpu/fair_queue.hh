// A queue that serves its users in turn: one with five hundred entries does not starve another with one.
//
// Round robin over users, first come first served for each (as in Nagle, "On Packet Switches With Infinite
// Storage", RFC 970). push and pop cost O(log users). Not synchronised.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace torpor::gpu {

template <class Entry>
class FairQueue {
  public:
    bool empty() const { return size_ == 0; }
    size_t size() const { return size_; }

    void push(std::string_view user, Entry entry) {
        auto found = waiting_.find(user);
        if (found == waiting_.end()) {
            found = waiting_.emplace(std::string(user), std::deque<Entry>()).first;
            turns_.push_back(found->first);
        }
        found->second.push_back(std::move(entry));
        ++size_;
    }

    // The next entry of the user whose turn it is. Not when empty.
    Entry pop() {
        const std::string user = std::move(turns_.front());
        turns_.pop_front();
        const auto found = waiting_.find(user);
        Entry entry = std::move(found->second.front());
        found->second.pop_front();
        if (found->second.empty()) {
            waiting_.erase(found);
        } else {
            turns_.push_back(user);
        }
        --size_;
        return entry;
    }

    // Takes this entry out; false if it is not in the queue (any more).
    bool erase(std::string_view user, const Entry& entry) {
        const auto found = waiting_.find(user);
        if (found == waiting_.end()) return false;
        const auto place = std::ranges::find(found->second, entry);
        if (place == found->second.end()) return false;
        found->second.erase(place);
        if (found->second.empty()) {
            std::erase(turns_, found->first);
            waiting_.erase(found);
        }
        --size_;
        return true;
    }

  private:
    std::map<std::string, std::deque<Entry>, std::less<>> waiting_;  // no user without entries
    std::deque<std::string> turns_;                                  // each user in waiting_ once
    size_t size_ = 0;
};

}  // namespace torpor::gpu
