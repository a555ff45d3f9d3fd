using System.Globalization;
using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;

namespace HpcBatchNorm.Benchmarks;

/// <summary>An amount of work of each benchmark, divided by its mean time.</summary>
internal sealed class RateColumn(string name, string legend, Func<BenchmarkCase, double?> amount, double unit = 1) : IColumn
{
    public string Id => name;

    public string ColumnName => name;

    public string Legend => legend;

    public bool AlwaysShow => true;

    public ColumnCategory Category => ColumnCategory.Custom;

    public int PriorityInCategory => 0;

    public bool IsNumeric => true;

    public UnitType UnitType => UnitType.Dimensionless;

    public bool IsAvailable(Summary summary) => true;

    public bool IsDefault(Summary summary, BenchmarkCase benchmarkCase) => false;

    public string GetValue(Summary summary, BenchmarkCase benchmarkCase) =>
        amount(benchmarkCase) is { } work && summary[benchmarkCase]?.ResultStatistics is { } time
            ? (unit * work / (time.Mean / 1e9)).ToString("N1", CultureInfo.InvariantCulture)
            : "-";

    public string GetValue(Summary summary, BenchmarkCase benchmarkCase, SummaryStyle style) => GetValue(summary, benchmarkCase);
}
