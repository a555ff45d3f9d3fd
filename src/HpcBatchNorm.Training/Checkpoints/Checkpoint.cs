using System.Globalization;
using System.Runtime.InteropServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>Copies the values of a persistent tensor, in logical order.</summary>
internal delegate void StateReader(Tensor tensor, Span<float> values);

/// <summary>Sets the values of a persistent tensor, in logical order.</summary>
internal delegate void StateWriter(Tensor tensor, ReadOnlySpan<float> values);

/// <summary>
/// The whole state of a training run in one safetensors file: every persistent tensor in single precision and logical order, and
/// <see cref="CheckpointInfo"/> in the metadata. Per-channel vectors are stored with one extent, everything else with four (O, I, H, W).
/// Opening verifies the checksum over the whole file.
/// </summary>
public sealed class Checkpoint : IDisposable
{
    private const string Format = "hpcbn-checkpoint";
    private const int Version = 1;

    // The planner's suffix for the moving average of a parameter or statistic.
    private const string AverageSuffix = ".average";

    private readonly SafetensorsFile _file;

    private Checkpoint(SafetensorsFile file, CheckpointInfo info) => (_file, Info) = (file, info);

    /// <summary>The file.</summary>
    public string Path => _file.Path;

    /// <summary>What the checkpoint knows besides its tensors.</summary>
    public CheckpointInfo Info { get; }

    /// <summary>The tensors in the file.</summary>
    public IReadOnlyList<SafetensorsTensor> Tensors => _file.Tensors;

    /// <summary>The metadata as written.</summary>
    public IReadOnlyDictionary<string, string> Metadata => _file.Metadata;

    /// <summary>Writes a checkpoint so that the file is either complete and on the disk, or not there.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="state">The persistent tensors.</param>
    /// <param name="read">Copies a tensor's values.</param>
    /// <param name="info">What else to remember.</param>
    internal static void Save(string path, IReadOnlyList<Tensor> state, StateReader read, CheckpointInfo info)
    {
        AtomicFile.Replace(path, temporary => Write(temporary, state, read, info));
    }

    private static void Write(string path, IReadOnlyList<Tensor> state, StateReader read, CheckpointInfo info)
    {
        SafetensorsTensor[] tensors = [.. state.Select(t => new SafetensorsTensor(t.Name, "F32", Extents(t.Shape)))];
        SafetensorsFile.Write(path, tensors, WriteInfo(info), (i, bytes) => read(state[i], MemoryMarshal.Cast<byte, float>(bytes)));
    }

    /// <summary>Opens a checkpoint and verifies it.</summary>
    /// <param name="path">The file; or the folder of a run, whose best checkpoint is opened, or the newest where none was evaluated.</param>
    /// <exception cref="UserErrorException">The file is missing, damaged, or not a checkpoint; the message says which.</exception>
    public static Checkpoint Open(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        if (Directory.Exists(path))
        {
            return CheckpointStore.OpenBest(path, _ => { })
                ?? throw new UserErrorException($"'{path}' is a folder without a good checkpoint (looked in '{CheckpointStore.FolderOf(path)}'); name a checkpoint, or the folder of a run.");
        }

        if (System.IO.Path.GetExtension(path).Equals(".onnx", StringComparison.OrdinalIgnoreCase) && File.Exists(path))
        {
            throw new UserErrorException($"'{path}' is an ONNX model and not a checkpoint; 'hpcbn import' makes a checkpoint of it.");
        }

        SafetensorsFile file = SafetensorsFile.Open(path);
        try
        {
            if (file.Metadata.GetValueOrDefault("format") != Format)
            {
                throw new UserErrorException($"'{path}' is a safetensors file but not a checkpoint of hpcbn. Where it holds weights under PyTorch's names, 'hpcbn import' makes a checkpoint of it.");
            }

            if (file.Metadata.GetValueOrDefault("format_version") is string version && version != Version.ToString(CultureInfo.InvariantCulture))
            {
                throw new UserErrorException($"'{path}' has checkpoint version {version}; this hpcbn reads version {Version}.");
            }

            if (!file.VerifyChecksum())
            {
                throw new UserErrorException($"'{path}' has no checksum; it was not written by hpcbn.");
            }

            return new Checkpoint(file, ReadInfo(file));
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Opens the newest good checkpoint of a run's folder; null when there is none.</summary>
    /// <param name="run">The folder of the run.</param>
    /// <param name="note">Told which damaged ones were passed over; may be null.</param>
    public static Checkpoint? OpenNewest(string run, Action<string>? note = null)
    {
        ArgumentNullException.ThrowIfNull(run);
        return CheckpointStore.OpenNewest(CheckpointStore.FolderOf(run), note ?? (_ => { }));
    }

    /// <summary>
    /// The network that was trained: as the file describes it, or, in files written before they did, the one of the catalogue that the configuration names.
    /// </summary>
    /// <exception cref="UserErrorException">The description is of layers that this program does not know, or there is no network of that name.</exception>
    public Network ReadNetwork()
    {
        try
        {
            if (Info.Network.Length > 0)
            {
                return Network.FromJson(Info.Network);
            }

            RunConfig config = new TrainingConfigBuilder().AddYaml(Info.Config, Path).Config;
            return NetworkSource.Resolve(config.Model, config.Network with { Classes = Info.ClassNames.Count });
        }
        catch (UserErrorException error)
        {
            throw new UserErrorException($"The network of '{Path}' cannot be made: {error.Message}", error);
        }
    }

    /// <summary>
    /// Copies the checkpoint's values into a session's state. Moving averages that the checkpoint lacks begin at the values they are averages of; those that the
    /// session lacks are left behind.
    /// </summary>
    /// <param name="model">Name of the session's network.</param>
    /// <param name="state">The session's persistent tensors.</param>
    /// <param name="write">Sets one of them.</param>
    /// <param name="note">Told where averages begin or end; may be null.</param>
    /// <exception cref="UserErrorException">The checkpoint belongs to another network: a tensor is missing, has another shape, or is too many.</exception>
    internal void Restore(string model, IReadOnlyList<Tensor> state, StateWriter write, Action<string>? note = null)
    {
        float[] values = new float[state.Count == 0 ? 0 : state.Max(t => t.Shape.Count)];
        HashSet<string> known = new(StringComparer.Ordinal);
        bool begin = false, end = false;
        foreach (Tensor tensor in state)
        {
            known.Add(tensor.Name);
            Span<float> span = values.AsSpan(0, (int)tensor.Shape.Count);
            bool begins = !_file.Contains(tensor.Name) && IsAverage(tensor.Name, out string of) && _file.Contains(of);
            Read(model, begins ? new Tensor(tensor.Name[..^AverageSuffix.Length], tensor.Shape, tensor.Role) : tensor, span);
            write(tensor, span);
            begin |= begins;
        }

        foreach (SafetensorsTensor odd in _file.Tensors.Where(t => !known.Contains(t.Name)))
        {
            end = IsAverage(odd.Name, out string of) && known.Contains(of) ? true : throw OtherNetwork(model, $"it also holds '{odd.Name}'");
        }

        if (begin || end)
        {
            note?.Invoke(begin
                ? $"'{Path}' has no moving averages: they begin at its values."
                : $"The moving averages of '{Path}' are left behind: from here on the weights themselves are evaluated.");
        }
    }

    /// <summary>Copies one tensor's values out of the checkpoint.</summary>
    /// <exception cref="UserErrorException">The checkpoint belongs to another network, or a value of the tensor is infinite or NaN.</exception>
    internal void Read(string model, Tensor tensor, Span<float> values)
    {
        if (!_file.Contains(tensor.Name))
        {
            throw OtherNetwork(model, $"it has no '{tensor.Name}'");
        }

        long[] expected = Extents(tensor.Shape);
        if (!_file[tensor.Name].Extents.SequenceEqual(expected))
        {
            throw OtherNetwork(model,
                FormattableString.Invariant($"its '{tensor.Name}' is {_file[tensor.Name]}, expected F32 [{string.Join(", ", expected)}]"));
        }

        _file.Read(tensor.Name, values);
        if (FiniteCheck.Describe(values) is { } found)
        {
            throw new UserErrorException($"'{Path}' cannot be used: of '{tensor.Name}' {found}. Use an earlier checkpoint.");
        }
    }

    /// <summary>
    /// The parameters and running statistics that evaluation uses, for images of <paramref name="imageSize"/> pixels: their moving averages where the run
    /// kept them.
    /// </summary>
    /// <param name="network">What <see cref="ReadNetwork"/> gives, or a network with layers of the same names and shapes.</param>
    /// <param name="imageSize">Height and width of the images, which matter to layers that have parameters for every place of theirs.</param>
    /// <exception cref="UserErrorException">The checkpoint belongs to another network.</exception>
    public NetworkState ReadNetworkState(Network network, int imageSize) => ReadNetworkState(network.Infer(1, imageSize, imageSize), network.Name);

    /// <summary>
    /// The network that was trained, with its parameters and the pixel normalization of its training, for an <see cref="Evaluator"/>.
    /// </summary>
    /// <param name="images">What it is to be evaluated on: images of the classes that it was trained on.</param>
    /// <param name="imageSize">Height and width that they get, which need not be those of the training.</param>
    /// <exception cref="UserErrorException">The checkpoint knows other classes than the images, or its tensors do not fit its own configuration.</exception>
    public EnsembleMember ReadMember(IImageSource images, int imageSize)
    {
        CheckClasses(images.ClassNames, images.Source);
        return ReadMember(imageSize);
    }

    /// <summary>As above, of classes that need not be those of any images, but must be those of the first member of an ensemble.</summary>
    internal EnsembleMember ReadMember(Checkpoint first, int imageSize)
    {
        CheckClasses(first.Info.ClassNames, first.Path);
        return ReadMember(imageSize);
    }

    private EnsembleMember ReadMember(int imageSize)
    {
        RunConfig config = EvaluationSetup.Configure(this, []);
        Network network = ReadNetwork();
        return new EnsembleMember(network, ReadNetworkState(network, imageSize))
        {
            PixelMean = config.Optimizer.PixelMean,
            PixelDeviation = config.Optimizer.PixelDeviation,
        };
    }

    /// <summary>
    /// Evaluates the network as the run that trained it did: with its preprocessing, image size, batch size and precision, so that the images of its own
    /// validation give the accuracy that the run told.
    /// </summary>
    /// <param name="backend">Where to compute.</param>
    /// <param name="images">Images of the classes that it was trained on.</param>
    /// <param name="crops">Views per image: 1, 10 or 144.</param>
    /// <param name="progress">Told after every batch, on this thread; may be null.</param>
    /// <param name="cancellationToken">Cancels between batches.</param>
    /// <exception cref="UserErrorException">The checkpoint knows other classes than the images, or none of them can be read.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public EvaluationResult Evaluate(
        Backend backend, IImageSource images, int crops = 1, IProgress<EvaluationProgress>? progress = null, CancellationToken cancellationToken = default)
    {
        RunConfig config = EvaluationSetup.Configure(this, []);
        EnsembleMember member = ReadMember(images, config.ImageSize);
        return new Evaluator(backend, images, EvaluationSetup.Loading(config, member.Network, crops), EvaluationSetup.Session(config, crops))
            .Run([member], progress, cancellationToken);
    }

    /// <summary>The parameters and running statistics that evaluation uses.</summary>
    /// <exception cref="UserErrorException">The checkpoint belongs to another network.</exception>
    internal NetworkState ReadNetworkState(NetworkShapes shapes, string model)
    {
        var state = new NetworkState();
        foreach (NetworkParameter parameter in shapes.Parameters)
        {
            float[] values = new float[parameter.Spec.Shape.Count];
            ReadEvaluated(model, parameter, values);
            state.Take(parameter.Name, parameter.Spec.Shape, values);
        }

        return state;
    }

    /// <summary>
    /// Writes a copy of this checkpoint for which <see cref="ReadNetworkState(Network, int)"/> gives what is in <paramref name="state"/>: that replaces the moving averages
    /// where the run keeps them, the values themselves elsewhere. All else, the optimizer's state included, is copied.
    /// </summary>
    public void SaveCopy(string path, NetworkState state)
    {
        Tensor[] tensors = [.. _file.Tensors.Select(t => new Tensor(t.Name, ShapeOf(t.Extents), TensorRole.Parameter))];
        OutputFile.Replace(path, temporary => Write(temporary, tensors, (tensor, values) =>
        {
            bool isAverage = IsAverage(tensor.Name, out string parameter);
            if (state.Names.Contains(parameter) && (isAverage || !_file.Contains(tensor.Name + AverageSuffix)))
            {
                state.Get(parameter, tensor.Shape).CopyTo(values);
            }
            else
            {
                _file.Read(tensor.Name, values);
            }
        }, Info));
    }

    /// <summary>The values of one parameter or running statistic that evaluation uses: its moving average where the run kept one.</summary>
    /// <exception cref="UserErrorException">The checkpoint belongs to another network.</exception>
    internal void ReadEvaluated(string model, NetworkParameter parameter, Span<float> values)
    {
        string name = _file.Contains(parameter.Name + AverageSuffix) ? parameter.Name + AverageSuffix : parameter.Name;
        Read(model, new Tensor(name, parameter.Spec.Shape, TensorRole.Parameter), values);
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private void CheckClasses(IReadOnlyList<string> wanted, string source)
    {
        IReadOnlyList<string> own = Info.ClassNames;
        if (own.SequenceEqual(wanted))
        {
            return;
        }

        int first = own.Zip(wanted).TakeWhile(pair => pair.First == pair.Second).Count();
        bool isNameless = own.Index().All(n => n.Item == n.Index.ToString(CultureInfo.InvariantCulture));
        string remedy = isNameless && own.Count == wanted.Count
            ? "The checkpoint has numbers for names, as models have that were imported without any: import it again with a file of the names of its classes, or give a class map"
            : "Set data to the data set of its training, or give a class map";
        string Name(IReadOnlyList<string> names) => first < names.Count ? $"'{names[first]}'" : "nothing";
        throw new UserErrorException(FormattableString.Invariant(
            $"'{Path}' was trained on {own.Count} other classes than the {wanted.Count} of '{source}': class {first} is {Name(own)} in the checkpoint, {Name(wanted)} in the data. {remedy} (by-name where the data has some of its classes); the members of an ensemble must all know the same classes."));
    }

    private UserErrorException OtherNetwork(string model, string difference) =>
        new(Info.Model == model
            ? $"'{Path}' is a checkpoint of another network than these settings describe, though both are called {model}: {difference}. Use the options it was trained with."
            : $"'{Path}' is a checkpoint of another network ({Info.Model}) than {model}: {difference}. Use the model and options it was trained with.");

    /// <summary>True for the moving average of a parameter or statistic; <paramref name="of"/> is the name of that, otherwise the name itself.</summary>
    private static bool IsAverage(string name, out string of)
    {
        bool average = name.EndsWith(AverageSuffix, StringComparison.Ordinal);
        of = average ? name[..^AverageSuffix.Length] : name;
        return average;
    }

    private static long[] Extents(Shape shape) =>
        shape is { N: 1, H: 1, W: 1 } ? [shape.C] : [shape.N, shape.C, shape.H, shape.W];

    private static Shape ShapeOf(IReadOnlyList<long> extents) => extents.Count == 1
        ? Shape.Vector((int)extents[0])
        : new Shape((int)extents[0], (int)extents[1], (int)extents[2], (int)extents[3]);

    /// <summary>What any tensor of a checkpoint is: one or four extents, each at least 1, of a size that fits the memory of a tensor.</summary>
    private static bool IsTensor(SafetensorsTensor tensor) =>
        tensor.Extents.Count is 1 or 4 && tensor.Extents.All(e => e is >= 1 and <= int.MaxValue) && tensor.Bytes <= int.MaxValue;

    private static KeyValuePair<string, string>[] WriteInfo(CheckpointInfo info) =>
    [
        new("format", Format),
        new("format_version", Invariant(Version)),
        new("library_version", info.LibraryVersion),
        new("model", info.Model),
        .. info.Network.Length > 0 ? [new KeyValuePair<string, string>("network", info.Network)] : Array.Empty<KeyValuePair<string, string>>(),
        new("step", Invariant(info.Step)),
        new("steps_per_epoch", Invariant(info.StepsPerEpoch)),
        .. info.Offset != 0 ? [new KeyValuePair<string, string>("step_offset", Invariant(info.Offset))] : Array.Empty<KeyValuePair<string, string>>(),
        .. info.Shift is { } shift
            ? [new KeyValuePair<string, string>("epoch_shift", string.Create(CultureInfo.InvariantCulture, $"{shift.Images} images in epoch {shift.Epoch}"))]
            : Array.Empty<KeyValuePair<string, string>>(),
        new("images_per_step", Invariant(info.ImagesPerStep)),
        .. info.Images > 0 ? [new KeyValuePair<string, string>("images", Invariant(info.Images))] : Array.Empty<KeyValuePair<string, string>>(),
        new("epoch", Invariant(info.Epoch)),
        new("best_top1", Invariant(info.BestTop1)),
        new("best_step", Invariant(info.BestStep)),
        new("evaluated_step", Invariant(info.EvaluatedStep)),
        new("loss_since_log", Invariant(info.SinceLog)),
        new("loss_since_evaluation", Invariant(info.SinceEvaluation)),
        .. info.LossScale is { } scale
            ? [new KeyValuePair<string, string>("loss_scale", string.Create(CultureInfo.InvariantCulture, $"{scale.Scale:R} after {scale.GoodSteps} steps, {scale.SkippedSteps} skipped"))]
            : Array.Empty<KeyValuePair<string, string>>(),
        new(ClassNameList.Key, ClassNameList.Write(info.ClassNames)),
        new("config_hash", info.ConfigHash),
        new("config", info.Config),
    ];

    private static CheckpointInfo ReadInfo(SafetensorsFile file)
    {
        string Text(string key) => file.Metadata.TryGetValue(key, out string? value)
            ? value
            : throw new UserErrorException($"'{file.Path}' lacks '{key}' in its metadata; it was not written by this hpcbn.");

        // A right checksum says that the file is as it was written, not that hpcbn wrote it.
        long Whole(string key, long least) =>
            long.TryParse(Text(key), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number) && number >= least
                ? number
                : throw Wild(file, key, Text(key));
        double Real(string key) => double.TryParse(Text(key), NumberStyles.Float, CultureInfo.InvariantCulture, out double number) ? number : throw Wild(file, key, Text(key));
        if (file.Tensors.FirstOrDefault(t => !IsTensor(t)) is { } odd)
        {
            throw new UserErrorException(
                $"'{file.Path}' holds '{UserErrorException.Excerpt(odd.Name)}', {UserErrorException.Excerpt(odd.ToString())}, which is no tensor of a checkpoint; use another checkpoint.");
        }

        return new CheckpointInfo
        {
            Step = Whole("step", least: 0),
            StepsPerEpoch = Whole("steps_per_epoch", least: 1),
            Offset = file.Metadata.ContainsKey("step_offset") ? Whole("step_offset", long.MinValue) : 0,
            Shift = ReadShift(file),
            ImagesPerStep = file.Metadata.ContainsKey("images_per_step") ? (int)Math.Min(Whole("images_per_step", least: 0), int.MaxValue) : 0,
            Images = file.Metadata.ContainsKey("images") ? (int)Math.Min(Whole("images", least: 0), int.MaxValue) : 0,
            Model = Text("model"),
            Network = file.Metadata.GetValueOrDefault("network", ""),
            Config = Text("config"),
            ConfigHash = Text("config_hash"),
            ClassNames = ClassNameList.Read(Text(ClassNameList.Key)),
            BestTop1 = Real("best_top1"),
            BestStep = Whole("best_step", least: -1),
            EvaluatedStep = Whole("evaluated_step", least: 0),
            SinceLog = ReadLosses(file, "loss_since_log"),
            SinceEvaluation = ReadLosses(file, "loss_since_evaluation"),
            LossScale = ReadLossScale(file),
            LibraryVersion = Text("library_version"),
        };
    }

    private static string Invariant(LossSum losses) => string.Create(CultureInfo.InvariantCulture, $"{losses.Sum} of {losses.Steps} steps");

    private static UserErrorException Wild(SafetensorsFile file, string key, string value) =>
        new($"'{file.Path}' says '{key}' is '{UserErrorException.Excerpt(value)}', which cannot be; use another checkpoint.");

    /// <summary>Absent in the first checkpoints of version 1.</summary>
    private static LossSum ReadLosses(SafetensorsFile file, string key) => !file.Metadata.TryGetValue(key, out string? text) ? default
        : text.Split(' ') is [var sum, _, var steps, _]
            && double.TryParse(sum, NumberStyles.Float, CultureInfo.InvariantCulture, out double losses)
            && long.TryParse(steps, NumberStyles.None, CultureInfo.InvariantCulture, out long count)
        ? new LossSum(losses, count)
        : throw Wild(file, key, text);

    private static EpochShift? ReadShift(SafetensorsFile file) => !file.Metadata.TryGetValue("epoch_shift", out string? text) ? null
        : text.Split(' ') is [var images, _, _, _, var epoch]
            && int.TryParse(images, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int count) && Math.Abs((long)count) < int.MaxValue
            && long.TryParse(epoch, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
        ? new EpochShift(number, count)
        : throw Wild(file, "epoch_shift", text);

    private static LossScale? ReadLossScale(SafetensorsFile file) => !file.Metadata.TryGetValue("loss_scale", out string? text) ? null
        : text.Split(' ') is [var scale, _, var good, _, var skipped, _]
            && float.TryParse(scale, NumberStyles.Float, CultureInfo.InvariantCulture, out float factor) && float.IsFinite(factor) && factor > 0
            && int.TryParse(good.TrimEnd(','), NumberStyles.None, CultureInfo.InvariantCulture, out int goodSteps)
            && long.TryParse(skipped, NumberStyles.None, CultureInfo.InvariantCulture, out long skippedSteps)
        ? new LossScale(factor, goodSteps, skippedSteps)
        : throw Wild(file, "loss_scale", text);

    private static string Invariant<T>(T value)
        where T : IFormattable => value.ToString(null, CultureInfo.InvariantCulture);
}
