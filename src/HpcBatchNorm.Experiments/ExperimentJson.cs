using System.Text.Json.Serialization;

namespace HpcBatchNorm.Experiments;

/// <summary>What experiments keep in files. Curves may hold values that are not finite: runs that diverge are results too.</summary>
[JsonSourceGenerationOptions(NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals, WriteIndented = false, UseStringEnumConverter = true)]
[JsonSerializable(typeof(ExperimentRecord))]
[JsonSerializable(typeof(MlpRun))]
[JsonSerializable(typeof(TrainedRun))]
[JsonSerializable(typeof(EnsembleAccuracy))]
[JsonSerializable(typeof(OverfitRun))]
[JsonSerializable(typeof(double))]
[JsonSerializable(typeof(double[]))]
internal sealed partial class ExperimentJson : JsonSerializerContext;
