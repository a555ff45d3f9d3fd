#include "processors.hpp"

#include <algorithm>
#include <omp.h>

#if defined(_WIN32)

#include <vector>
#include <windows.h>

namespace hbn {

int32_t physical_cores() {
    // A mask holds the 64 processors of one group. Of a process that runs in several the system says 0, and nothing keeps it from any core.
    DWORD_PTR allowed = 0, all = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all) == 0) {
        allowed = 0;
    }
    USHORT groups[64];
    USHORT group_count = 64;
    const bool one_group = allowed != 0 && GetProcessGroupAffinity(GetCurrentProcess(), &group_count, groups) != 0 && group_count == 1;

    DWORD bytes = 0;
    GetLogicalProcessorInformationEx(RelationProcessorCore, nullptr, &bytes);
    std::vector<char> buffer(bytes);
    const auto record_at = [&](DWORD offset) { return reinterpret_cast<SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(buffer.data() + offset); };
    if (bytes == 0 || GetLogicalProcessorInformationEx(RelationProcessorCore, record_at(0), &bytes) == 0) {
        return std::max(1, omp_get_num_procs());
    }
    int32_t cores = 0;
    for (DWORD offset = 0; offset < bytes; offset += record_at(offset)->Size) {
        const GROUP_AFFINITY& core = record_at(offset)->Processor.GroupMask[0];
        if (!one_group || (core.Group == groups[0] && (core.Mask & allowed) != 0)) {
            cores++;
        }
    }
    return std::max(1, cores);
}

} // namespace hbn

#else

#include <fstream>
#include <sched.h>
#include <set>
#include <string>

namespace hbn {

int32_t physical_cores() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return std::max(1, omp_get_num_procs());
    }
    std::set<std::string> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) {
            continue;
        }
        std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
        std::string siblings;
        if (!std::getline(file, siblings)) {
            siblings = "cpu" + std::to_string(cpu);
        }
        cores.insert(siblings);
    }
    return std::max<int32_t>(1, static_cast<int32_t>(cores.size()));
}

} // namespace hbn

#endif
